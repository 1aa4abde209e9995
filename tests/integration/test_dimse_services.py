"""MPPS and storage commitment at our node, asked by pynetdicom and by Orthanc."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage, generate_uid
from pynetdicom import AE, build_context, evt
from pynetdicom.sop_class import ModalityPerformedProcedureStep, StorageCommitmentPushModel

from gateway import bootstrap
from gateway.domain.evidence import PerformedStep
from gateway.domain.ids import StudyUID
from gateway.hold.assembly import Release, Wait
from gateway.settings import Settings
from tests.support.node import wait
from tests.support.orthanc import free_port, running_orthanc
from tests.support.received import SERIES, STUDY, dataset

INSTANCE = "1.2.840.10008.1.20.1.1"
MPPS, COMMITMENT = ModalityPerformedProcedureStep, StorageCommitmentPushModel


class Node:
    """Our node with everything behind it, as `hilum serve` puts it together, without workers."""

    def __init__(self, directory: Path, peers: Sequence[dict[str, Any]] = ()) -> None:
        self.settings = Settings.model_validate(
            {
                "data_dir": str(directory),
                "dicom": {"port": 0, "peers": list(peers)},
                "hold": {"quiet": "1h", "limit": "2h", "settle": 0},
            }
        )
        self.ledger, self.spool = bootstrap.make_ledger(self.settings), bootstrap.make_spool(self.settings)
        self.reporter = bootstrap.make_reporter(self.settings, self.ledger, self.spool)
        self.node = bootstrap.make_node(self.settings, self.ledger, self.spool, self.reporter)
        self.node.start()
        self.port = self.node.port

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.reporter.stop()
        self.node.stop()
        self.ledger.close()

    def store(self, *datasets: Dataset, calling: str = "CT1") -> list[int]:
        """C-STORE of each; the statuses."""
        with self.associate(build_context(MRImageStorage), calling=calling) as association:
            return [association.send_c_store(with_meta(made)).Status for made in datasets]

    @contextmanager
    def associate(self, *contexts: Any, calling: str = "CT1", handlers: Sequence[Any] = ()) -> Iterator[Any]:
        association = AE(calling).associate(
            "127.0.0.1", self.port, contexts=list(contexts), ae_title="HILUM", evt_handlers=list(handlers)
        )
        assert association.is_established
        try:
            yield association
        finally:
            if association.is_established:
                association.release()

    def requests(self) -> list[Any]:
        """Commitment requests that are due for a report."""
        return list(self.ledger.due_commitment_requests(100))


def with_meta(made: Dataset) -> Dataset:
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ImplicitVRLittleEndian

    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return made


def item(**values: str) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def action(*references: tuple[str, str], transaction: str = "") -> Dataset:
    made = item(TransactionUID=transaction or generate_uid())
    made.ReferencedSOPSequence = [
        item(ReferencedSOPClassUID=kind, ReferencedSOPInstanceUID=uid) for kind, uid in references
    ]
    return made


class Reports:
    """What the SCU is told, on any association."""

    def __init__(self) -> None:
        self.told: list[tuple[int, Dataset]] = []
        self.came = threading.Semaphore(0)
        self.handlers = [(evt.EVT_N_EVENT_REPORT, self._take)]
        self.status = 0x0000

    def _take(self, event: Any) -> tuple[int, None]:
        self.told.append((event.event_type, event.event_information))
        self.came.release()
        return self.status, None

    def next(self) -> tuple[int, list[str], dict[str, int]]:
        """Event type, committed instances, and failures with their reasons."""
        assert self.came.acquire(timeout=30), "no report came"
        event_type, said = self.told[-1]
        committed = [str(one.ReferencedSOPInstanceUID) for one in said.get("ReferencedSOPSequence") or ()]
        failed = {
            str(one.ReferencedSOPInstanceUID): int(one.FailureReason) for one in said.get("FailedSOPSequence") or ()
        }
        return event_type, committed, failed


@contextmanager
def listening(reports: Reports, port: int = 0, *, roles: bool = True) -> Iterator[int]:
    """An SCU that takes reports on associations of ours."""
    entity = AE("CT1")
    chosen = {"scu_role": False, "scp_role": True} if roles else {}
    entity.add_supported_context(COMMITMENT, **chosen)
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=reports.handlers)
    assert server is not None
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def ask(association: Any, information: Dataset | None, action_type: int = 1, instance: str = INSTANCE) -> int:
    status, _ = association.send_n_action(information, action_type, COMMITMENT, instance)
    return int(status.Status)


def uid(number: int) -> str:
    return f"{SERIES}.{number}"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Node(tmp_path) as made:
        yield made


def test_everything_is_committed(node: Node) -> None:
    """The report comes on the same association, while images go over it, and names each instance."""
    assert node.store(*(dataset(number) for number in range(1, 9))) == [0] * 8
    reports = Reports()
    with node.associate(build_context(COMMITMENT), handlers=reports.handlers) as association:
        wanted = [(str(MRImageStorage), uid(number)) for number in range(1, 9)]
        assert ask(association, action(*wanted)) == 0
        event_type, committed, failed = reports.next()
        assert (event_type, committed, failed) == (1, [name for _, name in wanted], {})
        assert str(reports.told[0][1].RetrieveAETitle) == "HILUM"
        wait(lambda: node.requests() == [])


def test_what_we_do_not_have_is_not_committed(node: Node) -> None:
    """Never sent, another class, a damaged file, a file that is gone, and other content than we keep: each its reason."""
    node.store(*(dataset(number) for number in range(1, 6)))
    assert node.store(dataset(5, PatientName="Other^Content"), calling="CT2") != [0]
    kept = {number: node.ledger.instance(uid(number)) for number in (3, 4)}  # type: ignore[arg-type]
    damaged = node.spool.path(kept[3].file)
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    node.spool.path(kept[4].file).unlink()
    wanted = [
        (str(MRImageStorage), uid(1)),
        (str(CTImageStorage), uid(2)),
        *((str(MRImageStorage), uid(number)) for number in (3, 4, 5, 6)),
    ]
    for calling, fifth in (("CT1", None), ("CT2", 0x0110)):
        reports = Reports()
        with node.associate(build_context(COMMITMENT), calling=calling, handlers=reports.handlers) as association:
            assert ask(association, action(*wanted)) == 0
            event_type, committed, failed = reports.next()
        assert event_type == 2
        assert failed == {uid(2): 0x0119, uid(3): 0x0110, uid(4): 0x0110, uid(6): 0x0112} | (
            {uid(5): fifth} if fifth else {}
        )
        assert committed == [uid(1)] + ([] if fifth else [uid(5)])


def test_a_transaction_uid_is_used_once(node: Node) -> None:
    """Again with anything, after its report: every instance fails as a duplicate transaction."""
    node.store(dataset(1))
    reports = Reports()
    request = action((str(MRImageStorage), uid(1)), transaction="1.2.3.4")
    with node.associate(build_context(COMMITMENT), handlers=reports.handlers) as association:
        assert ask(association, request) == 0
        assert reports.next()[0] == 1
        wait(lambda: node.requests() == [])
        assert ask(association, request) == 0
        assert reports.next() == (2, [], {uid(1): 0x0131})
    with node.associate(build_context(COMMITMENT), calling="CT2", handlers=reports.handlers) as association:
        assert ask(association, request) == 0
        assert reports.next() == (2, [], {uid(1): 0x0131})


def test_requests_that_are_none(node: Node) -> None:
    """Each has its status, and nothing is owed for it."""
    good = action((str(MRImageStorage), uid(1)))
    empty, nameless = action(), action((str(MRImageStorage), ""))
    without = action((str(MRImageStorage), uid(1)))
    del without.TransactionUID
    with node.associate(build_context(COMMITMENT)) as association:
        assert ask(association, good, action_type=2) == 0x0123
        assert ask(association, good, instance="1.2.3") == 0x0112
        for wrong in (empty, nameless, without):
            assert ask(association, wrong) == 0x0115
        status, _ = association.send_n_get([0x00081195], COMMITMENT, INSTANCE)
        assert status.Status == 0x0211
    assert node.requests() == []


@pytest.mark.parametrize("roles", [True, False])
def test_the_report_comes_on_another_association(tmp_path: Path, roles: bool) -> None:
    """The SCU hangs up after its request; we call back as SCP, also one that ignores role selection."""
    reports = Reports()
    with listening(reports, roles=roles) as port:
        there = {"ae_title": "CT1", "host": "127.0.0.1", "commitment": {"host": "127.0.0.1", "port": port}}
        with Node(tmp_path, [there]) as node:
            node.store(dataset(1))
            node.reporter.start()
            with node.associate(build_context(COMMITMENT)) as association:
                assert ask(association, action((str(MRImageStorage), uid(1)))) == 0
                association.release()
            assert reports.next() == (1, [uid(1)], {})
            wait(lambda: node.requests() == [])


def test_a_request_survives_a_restart(tmp_path: Path) -> None:
    """Nobody listened when the report was due, and then the gateway stopped: the next one reports what is true then."""
    port, reports = free_port(), Reports()
    peers = [{"ae_title": "CT1", "host": "127.0.0.1", "commitment": {"host": "127.0.0.1", "port": port}}]
    with Node(tmp_path, peers) as node:
        with node.associate(build_context(COMMITMENT)) as association:
            assert ask(association, action((str(MRImageStorage), uid(1)))) == 0
            association.release()
        wait(node.requests)
        node.store(dataset(1))
    with Node(tmp_path, peers) as node, listening(reports, port):
        assert len(node.requests()) == 1
        node.reporter.start()
        assert reports.next() == (1, [uid(1)], {})


def test_nowhere_to_report(node: Node) -> None:
    """A peer whose own port nobody has configured: it stays due, with the reason and growing pauses."""
    with node.associate(build_context(COMMITMENT)) as association:
        assert ask(association, action((str(MRImageStorage), uid(1)))) == 0
        association.release()
    wait(node.requests)
    (request,) = node.requests()
    node.reporter._say(request)
    assert node.requests() == [], "not due at once again"


@pytest.mark.neighbour
def test_orthanc_asks_for_commitment(tmp_path: Path) -> None:
    """A real PACS as SCU: it hears that all is here, and then that one is not."""
    with running_orthanc(tmp_path / "orthanc") as orthanc:
        peers = [
            {
                "ae_title": "ORTHANC",
                "host": "127.0.0.1",
                "commitment": {"host": "127.0.0.1", "port": orthanc.dicom_port},
            }
        ]
        with Node(tmp_path / "hilum", [*peers, {"ae_title": "CT1", "host": "127.0.0.1"}]) as node:
            node.reporter.start()
            node.store(dataset(1))
            modality = {"AET": "HILUM", "Host": "127.0.0.1", "Port": node.port, "AllowStorageCommitment": True}
            _rest(orthanc.url, "PUT", "/modalities/hilum", modality)
            for number, status in ((1, "Success"), (2, "Failure")):
                wanted = {"DicomInstances": [[str(MRImageStorage), uid(number)]]}
                path = json.loads(_rest(orthanc.url, "POST", "/modalities/hilum/storage-commitment", wanted))["Path"]

                def answered(path: str = path, status: str = status) -> bool:
                    return bool(json.loads(_rest(orthanc.url, "GET", path))["Status"] == status)

                wait(answered, 30)


def _rest(url: str, method: str, path: str, body: object = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data=data, method=method)  # noqa: S310 - our own loopback address
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return bytes(answer.read())


def performed(status: str, *images: str, study: str = STUDY) -> Dataset:
    """Attributes of a step."""
    made = item(PerformedProcedureStepStatus=status) if status else Dataset()
    if study:
        made.ScheduledStepAttributesSequence = [item(StudyInstanceUID=study, AccessionNumber="A1")]
    if images:
        series = item(SeriesInstanceUID=SERIES)
        series.ReferencedImageSequence = [
            item(ReferencedSOPClassUID=MRImageStorage, ReferencedSOPInstanceUID=name) for name in images
        ]
        series.ReferencedNonImageCompositeSOPInstanceSequence = [
            item(ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.11.1", ReferencedSOPInstanceUID="1.2.9.9")
        ]
        made.PerformedSeriesSequence = [series]
    return made


def test_a_step_from_its_beginning_to_its_end(node: Node) -> None:
    """Each word of the modality is evidence; a finished step stays as it is."""
    with node.associate(build_context(MPPS)) as association:
        status, _ = association.send_n_create(performed("IN PROGRESS"), MPPS, "1.9.1")
        assert status.Status == 0
        assert association.send_n_create(performed("IN PROGRESS"), MPPS, "1.9.1")[0].Status == 0x0111
        assert association.send_n_set(performed("", uid(1), study=""), MPPS, "1.9.1")[0].Status == 0
        done = performed("COMPLETED", uid(1), uid(2), study="")
        assert association.send_n_set(done, MPPS, "1.9.1")[0].Status == 0
        assert association.send_n_set(done, MPPS, "1.9.1")[0].Status == 0x0110
        assert association.send_n_set(done, MPPS, "1.9.2")[0].Status == 0x0112
    words = [
        PerformedStep(step_uid="1.9.1", source="CT1", status="IN PROGRESS"),
        PerformedStep(step_uid="1.9.1", source="CT1", status="IN PROGRESS", instances=(uid(1),)),
        PerformedStep(step_uid="1.9.1", source="CT1", status="COMPLETED", instances=(uid(1), uid(2))),
    ]
    assert node.ledger.evidence(STUDY) == words


def test_steps_that_are_none(node: Node) -> None:
    """Each has its status, and says nothing about any study."""
    with node.associate(build_context(MPPS)) as association:

        def create(made: Dataset) -> int:
            return int(association.send_n_create(made, MPPS, generate_uid())[0].Status)

        assert create(performed("COMPLETED")) == 0x0106
        assert create(performed("")) == 0x0106
        assert create(performed("IN PROGRESS", study="")) == 0x0120
        assert create(performed("IN PROGRESS", study="not a uid")) == 0x0120
        assert association.send_n_create(performed("IN PROGRESS", study="1.2.9"), MPPS, "1.9.1")[0].Status == 0
        assert association.send_n_set(performed("PAUSED", study=""), MPPS, "1.9.1")[0].Status == 0x0106
        assert association.send_n_get([0x00400252], MPPS, "1.9.1")[0].Status == 0x0211
    assert node.ledger.evidence(STUDY) == []
    assert len(node.ledger.evidence(StudyUID("1.2.9"))) == 1


def test_a_step_holds_and_releases_its_study(node: Node) -> None:
    """In progress the study waits; once the step is complete and all it lists is here, it goes on at once."""
    holder = bootstrap.make_holder(node.settings, node.ledger, [], {})
    with node.associate(build_context(MPPS)) as association:
        association.send_n_create(performed("IN PROGRESS"), MPPS, "1.9.1")
        node.store(dataset(1), dataset(2))
        wait(lambda: node.ledger.open_studies()[0].open_associations == 0)
        assert [type(verdict) for _, verdict in holder.verdicts()] == [Wait]
        association.send_n_set(performed("COMPLETED", uid(1), uid(2), study=""), MPPS, "1.9.1")
        [(record, verdict)] = list(holder.verdicts())
    assert isinstance(verdict, Release)
    assert "MPPS of CT1 completed, lists 2 instances, all here" in verdict.reason
    assert record.instances == 2
