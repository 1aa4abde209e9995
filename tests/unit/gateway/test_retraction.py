"""Taking results back: who is told, what stays here, and that nothing goes out afterwards."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from gateway.deliver.rejection import KEY_OBJECT_SELECTION, RejectionReason
from gateway.domain.errors import NotFound
from gateway.domain.ids import DestinationName, JobId
from gateway.domain.messages import ResultObject
from gateway.domain.states import IllegalTransition, JobEvent
from gateway.retraction import Retraction
from gateway.store.spool import LocalSpool
from tests.support.ledgers import EHR, LATER, NO, PACS, YES, Story, deliveries, outcome
from tests.support.objects import write_object


class Site:
    """A ledger with one job that two objects come of, and whoever is told of it."""

    def __init__(self, directory: Path) -> None:
        self.story = Story(directory)
        self.spool = LocalSpool(directory / "spool")
        self.cancelled: list[tuple[JobId, str]] = []
        self.objects = []
        for name in ("one", "two"):
            made = write_object(directory, name)
            self.objects.append(
                ResultObject(
                    role="seg",
                    file=self.spool.put(name, [made.path.read_bytes()]),
                    sop_class_uid=made.sop_class_uid,
                    sop_instance_uid=made.sop_instance_uid,
                    series_uid=str(dcmread(made.path).SeriesInstanceUID),
                    sha256="",
                    size=1,
                )
            )
        self.story.queue()
        claim = self.story.ledger.claim("w", 60)
        assert claim is not None
        made_of_it = dataclasses.replace(outcome(self.job), objects=tuple(self.objects))
        self.story.ledger.commit(claim, made_of_it)

    @property
    def job(self) -> JobId:
        """The job."""
        return self.story.job

    @property
    def keys(self) -> tuple[str, ...]:
        """SOP Instance UIDs of its objects."""
        return tuple(one.sop_instance_uid for one in self.objects)

    def plan(self) -> None:
        """Both objects to the PACS, and the message."""
        self.story.ledger.plan(self.job, deliveries(self.job, self.keys))

    def retraction(self, *takes_notes: DestinationName) -> Retraction:
        """With these destinations taking notes."""
        return Retraction(
            ledger=self.story.ledger,
            spool=self.spool,
            clock=self.story.ledger.clock,
            takes_notes=frozenset(takes_notes),
            cancel_report=lambda job, why: self.cancelled.append((job, why)),
        )

    def recall(self, **more: bool) -> object:
        """For patient safety, by the first digits of the digest."""
        digest = str(self.story.ledger.job(self.job).draft.model_digest)
        return self.retraction(PACS).recall(digest[:12], 0.0, RejectionReason.SAFETY, **more)

    def notes(self) -> list[dict[str, object]]:
        """The rejection notes in the outbox."""
        return [row for row in self.story.ledger.list_deliveries() if row["role"] == "rejection"]

    def states(self) -> dict[str, list[str]]:
        """Role -> states of the deliveries."""
        found: dict[str, list[str]] = {}
        for row in self.story.ledger.list_deliveries()[::-1]:
            found.setdefault(row["role"], []).append(row["state"])
        return found


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.story.ledger.close()


def test_what_was_delivered_is_withdrawn_by_a_note_and_a_cancellation(site: Site) -> None:
    """The note names both objects and goes out; then the result is retracted, and a second recall finds nothing."""
    site.plan()
    site.story.deliver(YES)
    (withdrawal,) = site.recall()  # type: ignore[misc]
    assert withdrawal.objects == {PACS: tuple(sorted(site.keys))}
    assert [job for job, _ in site.cancelled] == [site.job]
    assert site.story.job_state() == "retracting"
    (note,) = site.story.ledger.claim_deliveries(PACS, 60, 10)
    assert note.draft.sop_class_uid == KEY_OBJECT_SELECTION
    dataset = dcmread(BytesIO(site.spool.path(note.draft.file).read_bytes()))
    assert dataset.ConceptNameCodeSequence[0].CodeValue == "113037"
    assert dataset.SOPInstanceUID == note.draft.key
    site.story.ledger.settle(note, YES, None)
    assert site.story.job_state() == "retracted"
    assert site.recall() == []


def test_a_dry_run_changes_nothing(site: Site) -> None:
    """It says the same and does none of it."""
    site.plan()
    site.story.deliver(YES)
    (foreseen,) = site.recall(dry_run=True)  # type: ignore[misc]
    assert (foreseen.message, foreseen.state) == (True, "delivered")
    assert (site.story.job_state(), site.notes(), site.cancelled) == ("delivered", [], [])


def test_what_has_not_left_stays_here(site: Site) -> None:
    """Objects and message that were never sent are withdrawn, and nobody has to be told."""
    site.plan()
    (withdrawal,) = site.recall()  # type: ignore[misc]
    assert (withdrawal.objects, withdrawal.message) == ({}, False)
    assert site.story.job_state() == "retracted"
    assert site.states() == {"seg": ["withdrawn", "withdrawn"], "oru": ["withdrawn"]}
    assert site.story.ledger.claim_deliveries(PACS, 60, 10) == []
    assert site.cancelled == []


def test_what_is_on_its_way_is_named_and_not_sent_again(site: Site) -> None:
    """One is being sent while the recall comes, and would have to be tried again: it may be there all the same."""
    site.plan()
    first, second = site.story.ledger.claim_deliveries(PACS, 60, 10)
    site.recall()
    site.story.ledger.settle(first, LATER, site.story.ledger.clock.now() + 5)
    site.story.ledger.settle(second, YES, None)
    assert site.states() == {"seg": ["withdrawn", "delivered"], "oru": ["withdrawn"], "rejection": ["waiting"]}
    assert len(site.notes()) == 1


@pytest.mark.parametrize("tried", [True, False])
def test_a_message_that_gave_way_to_a_correction_may_be_there(site: Site, tried: bool) -> None:
    """It was tried and withdrawn; the correction has not left yet, so only the cancellation tells the EHR."""
    site.plan()
    site.story.deliver(YES, only=PACS)
    if tried:
        (message,) = site.story.ledger.claim_deliveries(EHR, 60, 10)
        site.story.ledger.settle(message, LATER, site.story.ledger.clock.now() + 5)
    (row,) = [row for row in site.story.ledger.list_deliveries() if row["destination"] == EHR]
    assert site.story.ledger.withdraw(row["id"], "a correction takes its place")
    site.recall()
    assert [job for job, _ in site.cancelled] == ([site.job] if tried else [])


def test_dead_letters_of_a_withdrawn_result_cannot_be_replayed(site: Site) -> None:
    """Given up is given up, and a person must not send it by mistake."""
    site.plan()
    site.story.deliver(NO)
    site.recall()
    assert site.states()["seg"] == ["withdrawn", "withdrawn"]
    for row in site.story.ledger.list_deliveries():
        with pytest.raises(IllegalTransition):
            site.story.ledger.replay_delivery(row["id"])


def test_a_note_that_is_refused_keeps_the_result_retracting(site: Site) -> None:
    """Somebody does not know yet: it stays to be seen, and ends when the note has arrived after all."""
    site.plan()
    site.story.deliver(YES)
    site.recall()
    site.story.deliver(NO, only=PACS)
    assert site.story.job_state() == "retracting"
    site.story.ledger.replay_delivery(site.notes()[0]["id"])  # type: ignore[arg-type]
    site.story.deliver(YES, only=PACS)
    assert site.story.job_state() == "retracted"


def test_a_destination_that_takes_no_notes_gets_none(site: Site) -> None:
    """Its people have to be told otherwise; the result is withdrawn all the same."""
    site.plan()
    site.story.deliver(YES)
    digest = str(site.story.ledger.job(site.job).draft.model_digest)
    site.retraction().recall(digest, 0.0, RejectionReason.QUALITY)
    assert (site.notes(), site.story.job_state()) == ([], "retracted")


def test_a_note_that_a_pacs_sends_back_is_known_as_ours(site: Site) -> None:
    """Else it would be input."""
    site.plan()
    site.story.deliver(YES)
    site.recall()
    with site.story.ledger.engine.connect() as connection:
        own = {row[0] for row in connection.exec_driver_sql("SELECT sop_instance_uid FROM own_objects")}
    assert site.notes()[0]["key"] in own


def test_a_newer_version_takes_the_older_one_back(site: Site) -> None:
    """For reasons of quality, and without a cancellation: the new report replaces the old at the EHR."""
    site.plan()
    site.story.deliver(YES)
    older = site.job
    site.story.queue()
    claim = site.story.ledger.claim("w", 60)
    assert claim is not None
    newer = claim.job
    assert newer.supersedes == older
    site.retraction(PACS).replaced(newer)
    (note,) = site.notes()
    dataset = dcmread(BytesIO(site.spool.path(site.story.ledger.deliveries_of(older)[-1].draft.file).read_bytes()))
    assert (note["key"], dataset.ConceptNameCodeSequence[0].CodeValue) == (dataset.SOPInstanceUID, "113001")
    assert site.cancelled == []
    assert site.story.ledger.job(older).state.value == "retracting"


@pytest.mark.parametrize("event", [None, JobEvent.REFUSED, JobEvent.EXHAUSTED])
def test_a_recalled_build_never_runs_again(tmp_path: Path, event: JobEvent | None) -> None:
    """Queued, quarantined or dead: withdrawn, and not replayable."""
    story = Story(tmp_path)
    story.queue()
    if event:
        story.claim()
        story.job_events[event]()
    digest = str(story.ledger.job(story.job).draft.model_digest)
    retraction = Retraction(
        ledger=story.ledger, spool=LocalSpool(tmp_path / "s"), clock=story.ledger.clock, takes_notes=frozenset({PACS, EHR}),
        cancel_report=lambda job, why: None,
    )  # fmt: skip
    retraction.recall(digest, 0.0, RejectionReason.SAFETY)
    assert story.job_state() == "retracted"
    assert story.ledger.claim("w", 60) is None
    with pytest.raises(IllegalTransition):
        story.ledger.replay_job(story.job)
    story.ledger.close()


def test_only_results_since_then_are_recalled(site: Site) -> None:
    """Earlier ones, and those of another build, stay."""
    site.plan()
    ledger, recall = site.story.ledger, site.retraction(PACS).recall
    digest = str(ledger.job(site.job).draft.model_digest)
    assert recall(digest, ledger.clock.now() + 1e6, RejectionReason.QUALITY) == []
    assert recall("0" * 12, 0.0, RejectionReason.QUALITY) == []
    assert not ledger.has_build("0" * 12)
    assert ledger.has_build(digest[:8])


def test_a_file_that_is_gone_does_not_stop_a_recall(site: Site) -> None:
    """Any other of the objects says whose they are; where none does, whoever recalls is told, and the rest is withdrawn."""
    site.plan()
    for claimed in site.story.ledger.claim_deliveries(PACS, 60, 10):
        site.story.ledger.settle(claimed, YES, None)
    first, second = (site.spool.path(one.file) for one in site.objects)
    first.unlink()
    second.rename(second.with_suffix(".away"))
    with pytest.raises(NotFound, match=r"0 results are withdrawn, but job \w+ cannot be withdrawn"):
        site.recall()
    second.with_suffix(".away").rename(second)
    site.recall()
    assert len(site.notes()) == 1
