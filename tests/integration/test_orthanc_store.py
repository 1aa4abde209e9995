"""Results into a real Orthanc: by C-STORE and STOW-RS, again, verified, and while it is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ComprehensiveSRStorage, SegmentationStorage

from gateway.deliver.cstore import CStorePacs
from gateway.deliver.orthanc import OrthancAdmin
from gateway.deliver.settings import DicomDestination, DicomwebDestination
from gateway.deliver.stow import StowPacs
from gateway.domain.errors import DestinationUnreachable, NotFound
from gateway.domain.job import Verdict
from gateway.domain.ports import ObjectFile
from tests.support.objects import save, write_object
from tests.support.orthanc import RunningOrthanc, free_port, running_orthanc

pytestmark = pytest.mark.neighbour
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningOrthanc]:
    with running_orthanc(
        tmp_path_factory.mktemp("orthanc"), {"OverwriteInstances": False, "DicomAlwaysAllowGet": True}
    ) as server:
        yield server


@pytest.fixture(params=["dicom", "dicomweb"])
def pacs(request: pytest.FixtureRequest, orthanc: RunningOrthanc) -> CStorePacs | StowPacs:
    return by_dimse(orthanc) if request.param == "dicom" else by_web(orthanc)


def by_dimse(server: RunningOrthanc, **more: object) -> CStorePacs:
    base = {"kind": "dicom", "ae_title": "ORTHANC", "host": "127.0.0.1", "port": server.dicom_port}
    return CStorePacs(DicomDestination.model_validate({**base, **more}), "HILUM")


def by_web(orthanc: RunningOrthanc) -> StowPacs:
    return StowPacs(DicomwebDestination(kind="dicomweb", url=orthanc.dicomweb, verify="readback"))


def result_set(directory: Path, name: str) -> list[ObjectFile]:
    return [
        write_object(directory, f"{name}-seg", study=name, size=100_000),
        write_object(directory, f"{name}-sr", study=name, sop_class=ComprehensiveSRStorage),
        write_object(directory, f"{name}-labels", study=name, sop_class=LABEL_MAP),
    ]


def test_result_set_arrives_and_the_same_bytes_again_change_nothing(
    tmp_path: Path, pacs: CStorePacs | StowPacs, orthanc: RunningOrthanc
) -> None:
    """Both ways store every object once; what is downloaded has the same content as what was sent."""
    objects = result_set(tmp_path, f"set {type(pacs).__name__}")
    study = dcmread(objects[0].path).StudyInstanceUID
    for _ in range(2):
        receipts = pacs.store(objects)
        assert {receipt.verdict for receipt in receipts.values()} == {Verdict.ACCEPTED}, receipts
    admin = OrthancAdmin(orthanc.url)
    there = admin.instances_of(study)
    assert {(one.sop_class_uid, one.sop_instance_uid) for one in there} == {
        (one.sop_class_uid, one.sop_instance_uid) for one in objects
    }
    assert len(there) == 3
    for one in objects:
        dataset = dcmread(one.path)
        offset = len(one.path.read_bytes()) - 400
        assert admin.download(one.sop_instance_uid).endswith(one.path.read_bytes()[offset:])
        assert dataset.StudyInstanceUID in admin.studies()


@pytest.mark.parametrize("way", ["dicom", "dicomweb", "rest"])
def test_readback_tells_same_other_and_missing(tmp_path: Path, orthanc: RunningOrthanc, way: str) -> None:
    """Orthanc keeps the first copy and says that all is well; what was sent second is not there."""
    pacs = (
        by_web(orthanc)
        if way == "dicomweb"
        else by_dimse(orthanc, **({"orthanc": {"url": orthanc.url}} if way == "rest" else {}))
    )
    one, never = write_object(tmp_path, f"taken {way}", study=way), write_object(tmp_path, f"never {way}", study=way)
    assert pacs.store([one])[one.sop_instance_uid].verdict is Verdict.ACCEPTED
    found = pacs.read_back([one, never])
    assert found[one.sop_instance_uid].verdict is Verdict.ACCEPTED, found
    assert "same content" in found[one.sop_instance_uid].answer
    assert found[never.sop_instance_uid].verdict is Verdict.MISSING
    dataset = dcmread(one.path)
    dataset.PixelData = bytes(len(dataset.PixelData))
    save(dataset, one.path)
    pacs.store([one])
    other = pacs.read_back([one])[one.sop_instance_uid]
    assert other.verdict is Verdict.REJECTED
    assert "other content" in other.answer


def test_one_bad_file_does_not_stand_in_the_way_of_the_others(tmp_path: Path, orthanc: RunningOrthanc) -> None:
    """A file that Orthanc cannot read is not accepted; the others of the same request are."""
    good = write_object(tmp_path, "good", study="mixed")
    (tmp_path / "bad").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 400)
    bad = ObjectFile(sop_class_uid=SegmentationStorage, sop_instance_uid="1.2.3", path=tmp_path / "bad")
    receipts = by_web(orthanc).store([bad, good])
    assert receipts["1.2.3"].verdict is not Verdict.ACCEPTED
    assert receipts[good.sop_instance_uid].verdict is Verdict.ACCEPTED


def test_echo_tells_a_pacs_from_none(orthanc: RunningOrthanc) -> None:
    """C-ECHO and QIDO-RS answer while Orthanc is there."""
    assert "C-ECHO" in by_dimse(orthanc).echo()
    assert "QIDO-RS" in by_web(orthanc).echo()
    elsewhere = DicomwebDestination(kind="dicomweb", url=f"http://127.0.0.1:{free_port()}/dicom-web")
    with pytest.raises(DestinationUnreachable, match="cannot connect"):
        StowPacs(elsewhere).echo()


def test_what_orthanc_has_not_is_not_found(orthanc: RunningOrthanc) -> None:
    """An unknown instance, an unknown study, and no Orthanc at all are three different answers."""
    admin = OrthancAdmin(orthanc.url)
    with pytest.raises(NotFound):
        admin.download("1.2.3.4.5.6.7")
    assert admin.instances_of("1.2.3.4.5.6.7") == []
    with pytest.raises(DestinationUnreachable):
        OrthancAdmin(f"http://127.0.0.1:{free_port()}").version()


def test_delivery_waits_for_a_pacs_that_is_away(tmp_path: Path) -> None:
    """Refused while Orthanc is down, accepted after it is back, once."""
    one = write_object(tmp_path, "patient", study="away")
    with running_orthanc(tmp_path / "a") as first:
        gone = first
    for pacs in (by_dimse(gone), by_web(gone)):
        assert pacs.store([one])[one.sop_instance_uid].verdict is Verdict.RETRY
    with running_orthanc(tmp_path / "b") as back:
        assert by_dimse(back).store([one])[one.sop_instance_uid].verdict is Verdict.ACCEPTED
