"""Proof of delivery against scripted peers: every way a storage commitment report comes, or does not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from gateway import bootstrap
from gateway.deliver.commitment import CommitmentReports, StorageCommitment
from gateway.deliver.commitment_report import judge, read_report
from gateway.deliver.cstore import CStorePacs
from gateway.deliver.dimse import Dialer
from gateway.deliver.dispatch import Dispatcher, by_reading_back, through_pacs
from gateway.deliver.settings import DicomDestination
from gateway.domain.job import DeliveryDraft, Payload, Verdict
from gateway.domain.states import JobEvent
from gateway.settings import Settings
from gateway.store.spool import LocalSpool
from tests.support.ledgers import PACS, Story
from tests.support.objects import write_object
from tests.support.scp import Commits, Peer, storage_peer

QUICK = {"connect": 2, "acse": 2, "dimse": 2, "network": 2}
OBJECTS = 4


@dataclass
class Rig:
    """One job whose objects go to one peer, with our node beside it."""

    story: Story
    spool: LocalSpool
    node_port: int
    keys: list[str] = field(default_factory=list)

    def dispatcher(self, peer: Peer, *, linger: float = 0.0) -> Dispatcher:
        """As a gateway that has just been started would make it."""
        to = DicomDestination.model_validate(
            {"kind": "dicom", "ae_title": "PEER", "host": "127.0.0.1", "port": peer.port, "timeouts": QUICK}
        )
        ledger, pacs = self.story.ledger, CStorePacs(to, "HILUM")
        look = by_reading_back(pacs, self.spool)
        prove = StorageCommitment(Dialer(to, "HILUM"), ledger, ledger.clock, look, timeout=600, linger=linger)
        return Dispatcher(PACS, through_pacs(pacs, self.spool), ledger, ledger.clock, prove=prove)

    def pass_time(self, seconds: float) -> None:
        """The clock of the ledger moves."""
        self.story.ledger.clock.time += seconds  # type: ignore[attr-defined]

    def states(self) -> list[str]:
        """Of the deliveries, oldest first."""
        return [row["state"] for row in self.story.ledger.list_deliveries()[::-1]]

    def happened(self) -> list[str]:
        """The story of the study, without its beginning."""
        (study,) = self.story.ledger.list_studies()
        events = self.story.ledger.explain(study["uid"])["events"]
        return [f"{event['what']}: {event['detail']}" for event in events if event["delivery_id"]]


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    story = Story(tmp_path)
    story.queue()
    for event in (JobEvent.CLAIMED, JobEvent.COMMITTED):
        story.job_events[event]()
    spool = LocalSpool(tmp_path / "spool")
    drafts = []
    for number in range(OBJECTS):
        one = write_object(tmp_path, f"object {number}")
        file = spool.put(one.sop_instance_uid, [one.path.read_bytes()])
        drafts.append(
            DeliveryDraft(
                job_id=story.job, destination=PACS, payload=Payload.OBJECT, role="seg", key=one.sop_instance_uid,
                file=file, sop_class_uid=one.sop_class_uid,
            )
        )  # fmt: skip
    story.ledger.plan(story.job, drafts)
    monkeypatch.setattr(bootstrap, "SystemClock", lambda: story.ledger.clock)
    node = bootstrap.make_node(Settings.model_validate({"dicom": {"port": 0}}), story.ledger, spool)
    node.start()
    yield Rig(story, spool, node.port, [draft.key for draft in drafts])
    node.stop()
    story.ledger.close()


@contextmanager
def peer(rig: Rig, *ways: str | int, **more: object) -> Iterator[Peer]:
    with storage_peer(commits=Commits(list(ways), port=rig.node_port), **more) as made:  # type: ignore[arg-type]
        yield made


def wait_until(true: Callable[[], bool]) -> None:
    """A report comes on a thread of the peer's own; the deadline only ends a test that has failed."""
    end = time.monotonic() + 20
    while not true() and time.monotonic() < end:
        time.sleep(0.01)  # between two looks
    assert true()


@pytest.mark.parametrize("way", ["all", "same", "twice"])
def test_committed_is_delivered(rig: Rig, way: str) -> None:
    """On another association, on the same, and twice: delivered once, and every report is answered with success."""
    with peer(rig, way) as there:
        dispatcher = rig.dispatcher(there, linger=10 if way == "same" else 0)
        dispatcher.deliver_due()
        assert rig.states() == ["stored"] * OBJECTS
        dispatcher.prove_due()
        wait_until(lambda: len(there.statuses) == (2 if way == "twice" else 1))
        assert rig.states() == ["delivered"] * OBJECTS
        assert there.statuses == [0] * len(there.statuses)
        assert len(there.transactions) == 1
        assert dispatcher.prove_due() == dispatcher.deliver_due() == 0
    assert rig.story.job_state() == "delivered"
    assert sum(line.startswith("stored: ") for line in rig.happened()) == OBJECTS
    assert sum(line.startswith("delivered: ") and "storage commitment" in line for line in rig.happened()) == OBJECTS


def test_only_what_was_not_committed_is_sent_again(rig: Rig) -> None:
    """Half fails: that half is sent again and asked for in a new transaction."""
    with peer(rig, "half", "all") as there:
        dispatcher = rig.dispatcher(there)
        dispatcher.deliver_due()
        dispatcher.prove_due()
        wait_until(lambda: len(there.statuses) == 1)
        assert rig.states() == ["waiting", "delivered"] * (OBJECTS // 2)
        rig.pass_time(300)
        dispatcher.deliver_due()
        dispatcher.prove_due()
        wait_until(lambda: len(there.statuses) == 2)
        assert rig.states() == ["delivered"] * OBJECTS
        assert len(set(there.transactions)) == 2
        assert sorted(there.stored) == sorted(rig.keys)
        assert len(there.requests) == OBJECTS + OBJECTS // 2
    assert any("not committed: 0x0112 no such object instance" in line for line in rig.happened())


@pytest.mark.parametrize("found", [True, False])
def test_never_answered_is_looked_up_then_sent_again(rig: Rig, found: bool) -> None:
    """When the time is over a query tells what is there; what is not is sent again."""
    with peer(rig, "silent", "all", find=True, finds=lambda _uid: found) as there:
        dispatcher = rig.dispatcher(there)
        dispatcher.deliver_due()
        dispatcher.prove_due()
        assert dispatcher.prove_due() == 0
        rig.pass_time(601)
        dispatcher.prove_due()
        assert rig.states() == (["delivered"] if found else ["waiting"]) * OBJECTS
        if found:
            assert all(
                "no storage commitment report came in time; found by C-FIND" in line for line in rig.happened()[-4:]
            )
            return
        rig.pass_time(300)
        dispatcher.deliver_due()
        dispatcher.prove_due()
        wait_until(lambda: there.statuses == [0])
    assert rig.states() == ["delivered"] * OBJECTS


def test_a_report_finds_its_transaction_after_a_restart(rig: Rig) -> None:
    """The gateway ends between request and report: its successor takes the report, and one that comes again."""
    with peer(rig, "silent") as there:
        dispatcher = rig.dispatcher(there)
        dispatcher.deliver_due()
        dispatcher.prove_due()
        rig.story.ledger.recover()
        assert rig.states() == ["stored"] * OBJECTS
        report = _report(there.transactions[0], rig.keys)
        for _ in range(2):
            assert CommitmentReports(rig.story.ledger, rig.story.ledger.clock).take(1, report) == 0
    assert rig.states() == ["delivered"] * OBJECTS


def test_a_request_that_may_never_have_gone_out(rig: Rig) -> None:
    """The gateway ends with the transaction written down: after the next start we look soon, not when its time is over."""
    with peer(rig, "silent", find=True) as there:
        dispatcher = rig.dispatcher(there)
        dispatcher.deliver_due()
        dispatcher.prove_due()
        rig.story.ledger.recover()
        assert dispatcher.prove_due() == 0
        rig.pass_time(31)
        assert dispatcher.prove_due() == OBJECTS
    assert rig.states() == ["delivered"] * OBJECTS


def test_a_late_report_does_no_harm(rig: Rig) -> None:
    """Failures that are told after the objects were found by query change nothing."""
    with peer(rig, "silent", find=True) as there:
        dispatcher = rig.dispatcher(there)
        dispatcher.deliver_due()
        dispatcher.prove_due()
        rig.pass_time(601)
        dispatcher.prove_due()
        report = _report(there.transactions[0], [], failed=rig.keys)
        assert CommitmentReports(rig.story.ledger, rig.story.ledger.clock).take(2, report) == 0
    assert rig.states() == ["delivered"] * OBJECTS


def test_a_report_that_nobody_asked_for_is_refused(rig: Rig) -> None:
    """A guessed transaction proves nothing."""
    with peer(rig, "silent") as there:
        dispatcher = rig.dispatcher(there)
        dispatcher.deliver_due()
        dispatcher.prove_due()
        reports = CommitmentReports(rig.story.ledger, rig.story.ledger.clock)
        assert reports.take(1, _report("2.25.1", rig.keys)) == 0x0115
        assert reports.take(1, Dataset()) == reports.take(1, None) == reports.take(7, Dataset()) == 0x0115
    assert rig.states() == ["stored"] * OBJECTS


def test_a_peer_without_commitment_is_looked_into_at_once(rig: Rig) -> None:
    """The site asks for more than the peer offers: a query proves it, and the story says by what."""
    with storage_peer(find=True) as there:
        dispatcher = rig.dispatcher(there)
        dispatcher.deliver_due()
        dispatcher.prove_due()
    assert rig.states() == ["delivered"] * OBJECTS
    assert "offers no storage commitment; found by C-FIND" in rig.happened()[-1]


def test_a_peer_that_cannot_be_asked_just_now_is_asked_again(rig: Rig) -> None:
    """A request that is refused for the moment comes again, and after a few of them we look ourselves."""
    with peer(rig, 0x0110, 0x0110, "all") as there:
        dispatcher = rig.dispatcher(there)
        dispatcher.deliver_due()
        for _ in range(3):
            dispatcher.prove_due()
            rig.pass_time(300)
        wait_until(lambda: there.statuses == [0])
    assert rig.states() == ["delivered"] * OBJECTS
    assert sum("refused with 0x0110" in line for line in rig.happened()) == OBJECTS


def test_an_object_that_is_not_committed_as_what_it_is() -> None:
    """Another class under the UID is a conflict that a person must see; a missing name is asked for again."""
    report = read_report(1, _report("2.25.9", ["1.2"], sop_class="1.9"))
    assert report is not None
    assert judge(report, "1.9", "1.2").verdict is Verdict.ACCEPTED
    assert judge(report, "1.8", "1.2").verdict is Verdict.REJECTED
    assert judge(report, "1.9", "1.3").verdict is Verdict.RETRY


def _report(transaction: str, keys: list[str], *, failed: list[str] = (), sop_class: str = "") -> Dataset:  # type: ignore[assignment]
    report = Dataset()
    report.TransactionUID = transaction
    report.ReferencedSOPSequence = [_item(key, sop_class) for key in keys]
    report.FailedSOPSequence = [_item(key, sop_class) for key in failed]
    for item in report.FailedSOPSequence:
        item.FailureReason = 0x0112
    return report


def _item(key: str, sop_class: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPInstanceUID = key
    if sop_class:
        item.ReferencedSOPClassUID = sop_class
    return item
