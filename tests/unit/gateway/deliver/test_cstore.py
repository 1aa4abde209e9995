"""C-STORE against scripted peers: what each answer, silence and break makes of an object."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ComprehensiveSRStorage, ImplicitVRLittleEndian, JPEG2000Lossless, SegmentationStorage
from pynetdicom.association import Association

from gateway.deliver.cstore import CStorePacs
from gateway.deliver.settings import DicomDestination
from gateway.domain.errors import DestinationUnreachable
from gateway.domain.job import Receipt, Verdict
from gateway.domain.ports import ObjectFile
from tests.support.certificates import make_certificate
from tests.support.objects import write_object
from tests.support.orthanc import free_port
from tests.support.scp import blackhole, stalling_proxy, storage_peer

QUICK = {"connect": 1, "acse": 2, "dimse": 2, "network": 2}


def pacs(port: int, **more: object) -> CStorePacs:
    destination = DicomDestination.model_validate(
        {"kind": "dicom", "ae_title": "PEER", "host": "127.0.0.1", "port": port, "timeouts": QUICK, **more}
    )
    return CStorePacs(destination, "HILUM")


def verdicts(receipts: Mapping[str, Receipt]) -> list[Verdict]:
    return [receipt.verdict for receipt in receipts.values()]


@pytest.fixture
def three(tmp_path: Path) -> list[ObjectFile]:
    return [write_object(tmp_path, name) for name in ("a", "b", "c")]


def test_all_objects_over_one_association_byte_for_byte(tmp_path: Path) -> None:
    """The dataset on the wire is the dataset in the file."""
    objects = [
        write_object(tmp_path, "seg", size=100_000),
        write_object(tmp_path, "sr", sop_class=ComprehensiveSRStorage),
    ]
    with storage_peer() as peer:
        receipts = pacs(peer.port).store(objects)
    assert verdicts(receipts) == [Verdict.ACCEPTED] * 2
    assert peer.associations == 1
    for one in objects:
        assert one.path.read_bytes().endswith(peer.stored[one.sop_instance_uid])
        assert len(peer.stored[one.sop_instance_uid]) > 300


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (0x0000, Verdict.ACCEPTED),
        (0xB000, Verdict.ACCEPTED),
        (0xB006, Verdict.ACCEPTED),
        (0xB007, Verdict.ACCEPTED),
        (0xA700, Verdict.RETRY),
        (0x0110, Verdict.RETRY),
        (0xA900, Verdict.REJECTED),
        (0xC000, Verdict.REJECTED),
        (0x0122, Verdict.UNSUPPORTED),
    ],
)
def test_each_status_has_its_verdict(tmp_path: Path, status: int, verdict: Verdict) -> None:
    """The verdict follows PS3.7 annex C, and the answer names the status."""
    one = write_object(tmp_path, "seg")
    with storage_peer([status]) as peer:
        receipt = pacs(peer.port).store([one])[one.sop_instance_uid]
    assert receipt.verdict is verdict
    assert receipt.answer.startswith(f"0x{status:04X}")
    assert ("warning" in receipt.answer) == (status >> 12 == 0xB)


def test_out_of_resources_once_concerns_one_object(three: list[ObjectFile]) -> None:
    """After 0xA700 for the first object the others still arrive, and the first arrives next time."""
    with storage_peer([0xA700, 0]) as peer:
        first = pacs(peer.port).store(three)
        again = pacs(peer.port).store(three[:1])
    assert verdicts(first) == [Verdict.RETRY, Verdict.ACCEPTED, Verdict.ACCEPTED]
    assert verdicts(again) == [Verdict.ACCEPTED]
    assert len(peer.stored) == 3


def test_abort_costs_the_object_it_answered_and_no_other(three: list[ObjectFile]) -> None:
    """The rest goes over a new association at once."""
    with storage_peer([0, "abort", 0]) as peer:
        receipts = pacs(peer.port).store(three)
    assert verdicts(receipts) == [Verdict.ACCEPTED, Verdict.RETRY, Verdict.ACCEPTED]
    assert peer.associations == 2


def test_peer_that_always_aborts_is_not_called_for_ever(tmp_path: Path) -> None:
    """Every object has a receipt after three associations."""
    objects = [write_object(tmp_path, f"o{number}") for number in range(5)]
    with storage_peer(["abort"]) as peer:
        receipts = pacs(peer.port).store(objects)
    assert verdicts(receipts) == [Verdict.RETRY] * 5
    assert peer.associations == 3


def test_missing_presentation_context_is_permanent_and_named(tmp_path: Path) -> None:
    """A class the peer does not take is refused by name, and another form may do; the other object arrives."""
    objects = [write_object(tmp_path, "seg"), write_object(tmp_path, "sr", sop_class=ComprehensiveSRStorage)]
    with storage_peer(classes=[ComprehensiveSRStorage]) as peer:
        receipts = pacs(peer.port).store(objects)
    assert verdicts(receipts) == [Verdict.UNSUPPORTED, Verdict.ACCEPTED]
    assert "Segmentation Storage" in receipts[objects[0].sop_instance_uid].answer


def test_no_presentation_context_at_all(tmp_path: Path) -> None:
    """An association without any accepted context rejects each object, not the connection."""
    one = write_object(tmp_path, "seg", syntax=JPEG2000Lossless)
    with storage_peer(classes=[ComprehensiveSRStorage]) as peer:
        receipt = pacs(peer.port).store([one])[one.sop_instance_uid]
    assert receipt.verdict is Verdict.UNSUPPORTED
    assert "JPEG 2000" in receipt.answer


def test_peer_with_implicit_vr_only_gets_the_same_values(tmp_path: Path) -> None:
    """An uncompressed object is encoded anew for a peer that takes the default transfer syntax alone."""
    one = write_object(tmp_path, "seg")
    with storage_peer(syntaxes=[ImplicitVRLittleEndian]) as peer:
        receipts = pacs(peer.port).store([one])
    assert verdicts(receipts) == [Verdict.ACCEPTED]
    arrived = tmp_path / "arrived"
    arrived.write_bytes(peer.stored[one.sop_instance_uid])
    there, here = dcmread(arrived, force=True), dcmread(one.path)
    assert there.PixelData == here.PixelData
    assert (there.PatientName, there.SOPInstanceUID) == (here.PatientName, here.SOPInstanceUID)


def test_rejected_association_is_permanent_for_a_title_and_says_so(tmp_path: Path) -> None:
    """An unknown calling AE title stays unknown until a person changes it."""
    one = write_object(tmp_path, "seg")
    with storage_peer(titles=["OTHER"]) as peer:
        receipt = pacs(peer.port).store([one])[one.sop_instance_uid]
        allowed = pacs(peer.port, calling_ae_title="OTHER").store([one])[one.sop_instance_uid]
    assert receipt.verdict is Verdict.REJECTED
    assert "alling AE" in receipt.answer
    assert allowed.verdict is Verdict.ACCEPTED


def test_refused_connection_is_tried_again(three: list[ObjectFile]) -> None:
    """Nobody listens: every object waits."""
    receipts = pacs(free_port()).store(three)
    assert verdicts(receipts) == [Verdict.RETRY] * 3
    assert "cannot connect" in next(iter(receipts.values())).answer


def test_unknown_host_is_tried_again(three: list[ObjectFile]) -> None:
    """A name that does not resolve is no reason to lose a result."""
    receipts = pacs(104, host="nowhere.invalid").store(three)
    assert verdicts(receipts) == [Verdict.RETRY] * 3


def test_silent_peer_ends_by_itself(three: list[ObjectFile]) -> None:
    """A port that accepts and never answers costs the time limit once, not once for each object."""
    with blackhole() as port:
        started = time.monotonic()
        receipts = pacs(port).store(three)
    assert verdicts(receipts) == [Verdict.RETRY] * 3
    assert time.monotonic() - started < 5


def test_peer_that_falls_silent_is_not_called_again_for_each_object(three: list[ObjectFile]) -> None:
    """What it answered counts; the rest waits for another time, at the cost of one time limit."""
    with storage_peer([0, "silent"]) as peer:
        receipts = pacs(peer.port).store(three)
        assert len(peer.requests) == 2
    assert verdicts(receipts) == [Verdict.ACCEPTED, Verdict.RETRY, Verdict.RETRY]
    assert peer.associations == 1


@pytest.mark.parametrize("found", [True, False])
def test_duplicate_is_accepted_only_where_it_can_be_found(tmp_path: Path, found: bool) -> None:
    """0x0111 from a peer that then does not find the instance is no proof of anything."""
    one = write_object(tmp_path, "seg")
    with storage_peer([0x0111], find=True, finds=lambda _uid: found) as peer:
        receipt = pacs(peer.port).store([one])[one.sop_instance_uid]
    assert receipt.verdict is (Verdict.ACCEPTED if found else Verdict.RETRY)


def test_duplicate_that_nobody_can_compare_is_not_accepted(tmp_path: Path) -> None:
    """Without C-FIND and C-GET a person has to look: it may be anything under our UID."""
    one = write_object(tmp_path, "seg")
    with storage_peer([0x0111]) as peer:
        receipt = pacs(peer.port).store([one])[one.sop_instance_uid]
    assert receipt.verdict is Verdict.REJECTED
    assert "neither C-FIND nor C-GET" in receipt.answer


def test_implicit_is_all_that_is_offered_where_the_site_says_so(tmp_path: Path) -> None:
    """A peer that accepts Explicit VR and then chokes on it never sees it."""
    one = write_object(tmp_path, "seg")
    with storage_peer() as peer:
        receipts = pacs(peer.port, transfer_syntax="implicit").store([one])
    assert verdicts(receipts) == [Verdict.ACCEPTED]
    assert not one.path.read_bytes().endswith(peer.stored[one.sop_instance_uid])


def test_files_that_are_not_the_object_never_leave(tmp_path: Path, three: list[ObjectFile]) -> None:
    """A file that is gone waits; one that is no DICOM or another instance is rejected; the good one arrives."""
    gone = ObjectFile(sop_class_uid=SegmentationStorage, sop_instance_uid="1.2.1", path=tmp_path / "gone")
    (tmp_path / "junk").write_bytes(b"junk" * 100)
    junk = ObjectFile(sop_class_uid=SegmentationStorage, sop_instance_uid="1.2.2", path=tmp_path / "junk")
    other = ObjectFile(sop_class_uid=SegmentationStorage, sop_instance_uid="1.2.3", path=three[0].path)
    with storage_peer() as peer:
        receipts = pacs(peer.port).store([gone, junk, other, three[1]])
    assert verdicts(receipts) == [Verdict.RETRY, Verdict.REJECTED, Verdict.REJECTED, Verdict.ACCEPTED]
    assert peer.requests == [three[1].sop_instance_uid]


def test_nothing_to_send_calls_nobody() -> None:
    """No objects, no association."""
    with storage_peer() as peer:
        assert pacs(peer.port).store([]) == {}
    assert peer.associations == 0


def test_echo_says_how_it_went() -> None:
    """C-ECHO succeeds, or DestinationUnreachable says why not."""
    with storage_peer() as peer:
        assert "C-ECHO answered by PEER at 127.0.0.1" in pacs(peer.port).echo()
    with pytest.raises(DestinationUnreachable, match="cannot connect"):
        pacs(free_port()).echo()


def test_peer_that_stops_reading_ends_by_itself(tmp_path: Path) -> None:
    """A full send buffer is noticed after the network limit, however large the object is."""
    objects = [write_object(tmp_path, "large", size=32 << 20), write_object(tmp_path, "small")]
    with storage_peer() as peer, stalling_proxy(peer.port, after=1 << 20) as port:
        started = time.monotonic()
        receipts = pacs(port).store(objects)
    assert verdicts(receipts) == [Verdict.RETRY] * 2
    assert time.monotonic() - started < 10


def test_tls_needs_the_right_certificate(tmp_path: Path) -> None:
    """With the peer's authority the object arrives; with another, or without TLS, it waits."""
    good, other = make_certificate(tmp_path), make_certificate(tmp_path, "127.0.0.2")
    one = write_object(tmp_path, "seg")
    with storage_peer(tls=good.server_context()) as peer:
        slower = {**QUICK, "acse": 3, "dimse": 3}
        arrived = pacs(peer.port, timeouts=slower, tls={"ca_file": str(good.certificate)}).store([one])
        refused = pacs(peer.port, timeouts=slower, tls={"ca_file": str(other.certificate)}).store([one])
    assert verdicts(arrived) == [Verdict.ACCEPTED]
    assert verdicts(refused) == [Verdict.RETRY]
    assert len(peer.requests) == 1


@pytest.mark.timeout(60)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_of_the_library_that_dies_holds_up_nobody(
    three: list[ObjectFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """pynetdicom's thread ends without a word while the association stands: the calls wait for it no longer."""

    lives = Association._run_reactor

    def die(self: Association) -> None:
        if self.is_requestor:
            raise SystemExit
        lives(self)

    monkeypatch.setattr(Association, "_run_reactor", die)
    with storage_peer() as peer:
        receipts = pacs(peer.port).store(three)
    assert verdicts(receipts) == [Verdict.ACCEPTED] * 3
