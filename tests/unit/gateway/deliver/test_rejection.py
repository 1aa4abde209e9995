"""Rejection notes: what they say, about whom, and that a validator and archives can read them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ComprehensiveSRStorage, SegmentationStorage

from gateway.deliver.rejection import RejectionReason, write_note
from gateway.domain.messages import ResultObject
from tests.support.objects import write_object


def described(path: Path, role: str) -> ResultObject:
    dataset = dcmread(path)
    return ResultObject(
        role=role,
        file=path.name,
        sop_class_uid=dataset.SOPClassUID,
        sop_instance_uid=dataset.SOPInstanceUID,
        series_uid=dataset.SeriesInstanceUID,
        sha256="",
        size=1,
    )


@pytest.fixture
def objects(tmp_path: Path) -> list[ResultObject]:
    change = {"PatientName": "Wang^XiaoDong=王^小東", "IssuerOfPatientID": "HOSPITAL"}
    seg = write_object(tmp_path, "seg", sop_class=SegmentationStorage, change=change)
    sr = write_object(tmp_path, "sr", sop_class=ComprehensiveSRStorage, change=change)
    return [described(seg.path, "seg"), described(sr.path, "sr")]


@pytest.mark.parametrize(("reason", "title"), [(RejectionReason.QUALITY, "113001"), (RejectionReason.SAFETY, "113037")])
def test_note_names_objects_reason_and_patient(
    tmp_path: Path, objects: list[ResultObject], reason: RejectionReason, title: str
) -> None:
    """PS3.3 A.35.4: title, evidence by series, an image as IMAGE and a report as COMPOSITE; identity to the letter."""
    note = write_note("job", objects, tmp_path / "seg.dcm", reason, "Replaced.", 1.7e9)
    (tmp_path / "note.dcm").write_bytes(note.content)
    read, source = dcmread(tmp_path / "note.dcm"), dcmread(tmp_path / "seg.dcm")
    assert (read.SOPClassUID, read.SOPInstanceUID) == ("1.2.840.10008.5.1.4.1.1.88.59", note.sop_instance_uid)
    assert (read.ConceptNameCodeSequence[0].CodeValue, read.ContentTemplateSequence[0].TemplateIdentifier) == (
        title,
        "2010",
    )
    for keyword in (
        "PatientName",
        "PatientID",
        "IssuerOfPatientID",
        "StudyInstanceUID",
        "AccessionNumber",
        "StudyDate",
    ):
        assert read[keyword].value == source[keyword].value, keyword
    (study,) = read.CurrentRequestedProcedureEvidenceSequence
    listed = {
        (series.SeriesInstanceUID, item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID)
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert listed == {(one.series_uid, one.sop_class_uid, one.sop_instance_uid) for one in objects}
    kinds = {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID: item.ValueType
        for item in read.ContentSequence
        if "ReferencedSOPSequence" in item
    }
    assert kinds == {objects[0].sop_instance_uid: "IMAGE", objects[1].sop_instance_uid: "COMPOSITE"}
    assert read.SeriesInstanceUID not in {one.series_uid for one in objects}


def test_validator_finds_no_error(tmp_path: Path, objects: list[ResultObject]) -> None:
    """dciodvfy, as others run it."""
    note = write_note("job", objects, tmp_path / "seg.dcm", RejectionReason.QUALITY, "Replaced.", 1.7e9)
    (tmp_path / "note.dcm").write_bytes(note.content)
    command = [str(Path(sys.executable).parent / "dciodvfy"), "-new", str(tmp_path / "note.dcm")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith(("Error", "Warning"))] == []


def test_same_objects_and_reason_are_the_same_note(tmp_path: Path, objects: list[ResultObject]) -> None:
    """Whatever order they come in; other objects or another reason are another note."""

    def uid(named: list[ResultObject], reason: RejectionReason = RejectionReason.QUALITY) -> str:
        return write_note("job", named, tmp_path / "seg.dcm", reason, "", 0.0).sop_instance_uid

    assert uid(objects) == uid(objects[::-1])
    assert len({uid(objects), uid(objects[:1]), uid(objects, RejectionReason.SAFETY)}) == 3
