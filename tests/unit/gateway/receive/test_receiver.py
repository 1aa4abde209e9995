"""What happens to an instance before it is acknowledged, on a real spool and ledger."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

from gateway.domain.errors import LedgerError, StorageFull
from gateway.domain.ids import AETitle, InstanceUID
from gateway.domain.study import Instance
from gateway.receive.receiver import Answer, Receiver, Sender, StoreRequest
from gateway.receive.settings import DicomSettings
from gateway.store.spool import LocalSpool
from tests.support.ledgers import make_ledger
from tests.support.received import SERIES, STUDY, MovedClock, dataset, encode


class Site:
    """A receiver with everything behind it."""

    def __init__(self, directory: Path, **settings: float) -> None:
        self.directory, self.ledger, self.spool = directory, make_ledger(directory), LocalSpool(directory / "spool")
        self.receiver = Receiver(self.spool, self.ledger, MovedClock(), DicomSettings(**settings))  # type: ignore[arg-type]
        self.sender: Sender = self.receiver.opened(AETitle("CT1"), "127.0.0.1")

    def store(self, data: bytes, *, uid: str = f"{SERIES}.1", sop_class: str = "1.2.840.10008.5.1.4.1.1.4") -> Answer:
        request = StoreRequest(
            sop_class_uid=sop_class,
            sop_instance_uid=uid,
            transfer_syntax_uid=str(ExplicitVRLittleEndian),
        )
        with self.receiver.begin(request, self.sender) as reception:
            for start in range(0, len(data), 100):
                reception.write([memoryview(data)[start : start + 100]])
            return reception.finish()

    def files(self) -> list[Path]:
        return [path for path in (self.directory / "spool").rglob("*") if path.is_file()]


@pytest.fixture
def site(tmp_path: Path):  # type: ignore[no-untyped-def]
    made = Site(tmp_path)
    yield made
    made.ledger.close()


def test_stored_as_sent(site: Site) -> None:
    """The bytes of the dataset are in a file and their digest in the ledger, and only then it is a success."""
    data = encode(dataset())
    assert site.store(data) == Answer(status=0x0000)
    kept = site.ledger.instance(InstanceUID(f"{SERIES}.1"))
    assert kept is not None
    assert kept.sha256 == hashlib.sha256(data).hexdigest()
    path = site.spool.path(kept.file)
    assert path.read_bytes().endswith(data)
    assert path.stat().st_size == kept.size
    assert dcmread(path).SOPInstanceUID == f"{SERIES}.1"
    assert (kept.calling_ae, kept.address, kept.association_id) == ("CT1", "127.0.0.1", site.sender.association)


@pytest.mark.parametrize("padding", ["\0", " "])
def test_padding_of_the_command_is_no_mismatch(site: Site, padding: str) -> None:
    """A UID of odd length may arrive with its padding."""
    assert site.store(encode(dataset()), uid=f"{SERIES}.1{padding}").status == 0x0000


@pytest.mark.parametrize(("uid", "sop_class"), [(f"{SERIES}.2", ""), ("", "1.2.840.10008.5.1.4.1.1.2")])
def test_command_and_dataset_differ(site: Site, uid: str, sop_class: str) -> None:
    """Another SOP class or instance than the command said is 0xA900, and nothing is kept."""
    answer = site.store(encode(dataset()), uid=uid or f"{SERIES}.1", sop_class=sop_class or "1.2.840.10008.5.1.4.1.1.4")
    assert answer.status == 0xA900
    assert site.files() == []
    assert site.ledger.list_studies() == []


@pytest.mark.parametrize(
    "data", [b"", b"garbage", bytes(1000), encode(dataset(StudyInstanceUID=None)), encode(dataset())[:200]]
)
def test_what_cannot_be_understood(site: Site, data: bytes) -> None:
    """Garbage is 0xC000 with a comment that fits into (0000,0902), and nothing is kept."""
    answer = site.store(data)
    assert answer.status == 0xC000
    assert 0 < len(answer.comment) <= 64
    assert site.files() == []
    assert site.ledger.list_studies() == []


def test_a_repetition_is_stored_once(site: Site) -> None:
    """The same content again is a success without a second file or row."""
    for _ in range(3):
        assert site.store(encode(dataset())).status == 0x0000
    assert len(site.files()) == 1
    assert site.ledger.list_studies()[0]["instances"] == 1


def test_other_content_under_the_same_uid(site: Site) -> None:
    """It is answered 0x0111 and put aside, and the first copy stays what it was."""
    first, other = encode(dataset()), encode(dataset(PatientID="P2"))
    assert site.store(first).status == 0x0000
    for _ in range(2):
        assert site.store(other).status == 0x0111
    kept = site.ledger.instance(InstanceUID(f"{SERIES}.1"))
    assert kept is not None
    assert site.spool.path(kept.file).read_bytes().endswith(first)
    [aside] = site.ledger.dead_letters()["conflicts"]
    assert site.spool.path(aside["file"]).read_bytes().endswith(other)
    assert site.ledger.list_studies()[0]["instances"] == 1


def test_a_full_disk_is_said_before_it_is_full(tmp_path: Path) -> None:
    """Under the lower mark everything is 0xA700, also what has come before."""
    site = Site(tmp_path, refuse_all_below=1.0)
    answer = site.store(encode(dataset()))
    assert (answer.status, answer.comment) == (0xA700, "out of disk space")
    assert site.files() == []
    site.ledger.close()


def test_a_disk_that_fills_takes_no_new_study(tmp_path: Path) -> None:
    """Under the upper mark a study that has begun is finished, and another is refused."""
    site = Site(tmp_path, refuse_all_below=0.0)
    assert site.store(encode(dataset())).status == 0x0000
    low = Receiver(site.spool, site.ledger, MovedClock(), DicomSettings(refuse_all_below=0.0, refuse_new_below=1.0))
    site.receiver = low
    assert site.store(encode(dataset(2)), uid=f"{SERIES}.2").status == 0x0000
    other = encode(dataset(3, StudyInstanceUID=f"{STUDY}.9"))
    answer = site.store(other, uid=f"{SERIES}.3")
    assert (answer.status, answer.comment) == (0xA700, "low on disk space: no new studies are taken")
    assert site.ledger.list_studies()[0]["instances"] == 2
    assert len(site.files()) == 2
    site.ledger.close()


class _Broken:
    """A ledger or spool of which one method raises."""

    def __init__(self, inner: object, method: str, error: Exception) -> None:
        self._inner, self._method, self._error = inner, method, error

    def __getattr__(self, name: str) -> object:
        return self._fail if name == self._method else getattr(self._inner, name)

    def _fail(self, *_: object, **__: object) -> Instance:
        raise self._error


@pytest.mark.parametrize("method", ["add_instance"])
def test_a_ledger_that_is_away(site: Site, method: str) -> None:
    """Without the ledger nothing is acknowledged: 0xA700, try again."""
    ledger = _Broken(site.ledger, method, LedgerError("database is locked"))
    site.receiver = Receiver(site.spool, ledger, MovedClock(), DicomSettings())  # type: ignore[arg-type]
    assert site.store(encode(dataset())).status == 0xA700


def test_a_spool_without_room(site: Site) -> None:
    """Without room there is no row: 0xA700, try again."""
    spool = _Broken(site.spool, "begin", StorageFull("cannot write to the spool: No space left on device"))
    site.receiver = Receiver(spool, site.ledger, MovedClock(), DicomSettings())  # type: ignore[arg-type]
    assert site.store(encode(dataset())).status == 0xA700
    assert site.ledger.list_studies() == []


def test_the_end_of_an_association_never_raises(site: Site) -> None:
    """Where it cannot be written down, holding waits for its upper limit."""
    ledger = _Broken(site.ledger, "close_association", LedgerError("away"))
    Receiver(site.spool, ledger, MovedClock(), DicomSettings()).closed(site.sender, "released")  # type: ignore[arg-type]
