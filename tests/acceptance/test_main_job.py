"""The main job on the real head, with the real model, Orthanc, broker and HL7."""

from __future__ import annotations

import json
from pathlib import Path

import pydicom
import pytest

from tests.acceptance.conftest import MakeSite
from tests.support.block import write_block
from tests.support.head import write_head
from tests.support.neighbours import SEG, SR, Neighbours, assert_promises
from tests.support.series import Change
from tests.support.site import Site

pytestmark = [pytest.mark.neighbour, pytest.mark.slow]


def test_head_goes_all_the_way_once(tmp_path: Path, neighbours: Neighbours) -> None:
    """Head MR in, SEG and SR in Orthanc, one ORU; sent again, or sent back by the PACS, nothing more comes of it."""
    files = write_head(tmp_path / "head")
    with Site(tmp_path / "site", neighbours.configuration("builtin:brain_mask")) as site:
        receipts = site.send(files)
        (job,) = site.wait_for_jobs(1)
        assert job["state"] == "delivered", site.log
        study = job["study_uid"]
        (volume,) = [item["value"] for item in job["outcome"]["measurements"]]
        assert 1100 < volume < 1300
        results = neighbours.results(study)
        assert results[SEG] == 1
        assert results[SR] >= 1

        # the same study again, and its results back from the PACS
        site.send(files)
        back = _download(neighbours, study, tmp_path / "back")
        site.send(back, calling="ORTHANC")
        site.wait_for(lambda: site.ledger.explain(study)["study"]["state"] == "routed", "the study to settle")
        assert len(site.jobs()) == 1
        assert neighbours.results(study) == results
        assert_promises(site, neighbours, files, receipts)

        story = json.loads(site.hilum("explain", study, "--json").stdout)
        said = {event["what"] for event in story["events"]}
        assert {
            "study opened",
            "study released",
            "routed",
            "job queued",
            "job started",
            "result ready",
            "delivered",
        } <= said
        assert site.stop() == 0


def _download(neighbours: Neighbours, study: str, folder: Path) -> list[Path]:
    folder.mkdir()
    found = []
    for number, item in enumerate(neighbours.admin.instances_of(study)):
        file = folder / f"{number}.dcm"
        file.write_bytes(neighbours.admin.download(item.sop_instance_uid))
        found.append(file)
    return found


def test_result_belongs_to_its_source(tmp_path: Path, make_site: MakeSite, neighbours: Neighbours) -> None:
    """Patient, study and frame of reference of every result equal the source's, byte for byte, in any script."""
    names = {"PatientName": "Wang^XiaoDong=王^小东", "SpecificCharacterSet": "ISO_IR 192"}
    files = write_block(tmp_path / "head", attributes=names)
    site = make_site()
    receipts = site.send(files)
    site.wait_for_jobs(1)
    source = pydicom.dcmread(files[0])
    for file in _download(neighbours, source.StudyInstanceUID, tmp_path / "results"):
        result = pydicom.dcmread(file)
        for keyword in (
            "PatientName",
            "PatientID",
            "PatientBirthDate",
            "PatientSex",
            "AccessionNumber",
            "StudyID",
            "StudyDate",
        ):
            assert result.get(keyword) == source.get(keyword), keyword
        if result.Modality == "SEG":
            assert result.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert_promises(site, neighbours, files, receipts)


def test_what_nobody_asked_for_is_explained(tmp_path: Path, make_site: MakeSite) -> None:
    """A modality that no rule wants is kept, not run, and the reason names rule and condition."""
    files = write_block(tmp_path / "head", modality="CT")[:5]
    site = make_site()
    site.send(files)
    site.wait_for(
        lambda: any(row["state"] == "unrouted" for row in site.ledger.list_studies()), "the study to be routed"
    )
    (study,) = site.ledger.list_studies()
    assert "every MR" in study["reason"]
    assert site.jobs() == []


def test_mixed_patients_are_held_back(tmp_path: Path, make_site: MakeSite) -> None:
    """Two patients under one Study Instance UID: quarantined, nothing run, nobody named."""
    files = write_block(tmp_path / "head")
    other = pydicom.dcmread(files[7])
    other.PatientID, other.PatientName = "SOMEBODY-ELSE", "Else^Somebody"
    other.save_as(files[7])
    site = make_site()
    site.send(files)
    site.wait_for(lambda: bool(site.ledger.dead_letters()["studies"]), "the study to be quarantined")
    (study,) = site.ledger.dead_letters()["studies"]
    assert "2 different patients" in study["reason"]
    assert "Somebody" not in site.log + study["reason"]
    assert site.jobs() == []


def _other_orientation(index: int, dataset: pydicom.Dataset) -> None:
    if index == 5:
        dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]


def _other_frame_of_reference(index: int, dataset: pydicom.Dataset) -> None:
    if index == 5:
        dataset.FrameOfReferenceUID = "1.2.3.4"


def _cut_off_pixels(index: int, dataset: pydicom.Dataset) -> None:
    if index == 5:
        dataset.PixelData = dataset.PixelData[:100]


@pytest.mark.parametrize("change", [_other_orientation, _other_frame_of_reference, _cut_off_pixels])
def test_images_that_make_no_volume_are_quarantined(
    tmp_path: Path, make_site: MakeSite, neighbours: Neighbours, change: Change
) -> None:
    """What arrived is kept, nothing leaves, and the reason is there for a person to read; the next study is done."""
    bad = write_block(tmp_path / "bad", seed="bad", change=change)
    good = write_block(tmp_path / "good", seed="good")
    site = make_site()
    receipts = site.send(bad)
    (job,) = site.wait_for_jobs(1)
    assert job["state"] == "quarantined"
    assert job["attempts_failed"] == 0
    assert job["outcome"]["reason_code"]
    assert job["id"] in site.hilum("dead-letters").stdout
    assert neighbours.ehr.control_ids == frozenset()
    receipts |= site.send(good)
    site.wait_for_jobs(1, "delivered")
    assert_promises(site, neighbours, bad + good, receipts)


def test_model_that_changed_after_admission_does_not_run(
    tmp_path: Path, make_site: MakeSite, neighbours: Neighbours
) -> None:
    """A bundle that is not the build that was admitted: dead at once, with that reason, and nothing leaves."""
    files = write_block(tmp_path / "in")
    site = make_site()
    (tmp_path / "bundle-threshold" / "configs" / "more.json").write_text("{}")
    receipts = site.send(files)
    (job,) = site.wait_for_jobs(1)
    assert (job["state"], job["attempts_failed"]) == ("dead", 1)
    assert "not the build that was admitted" in job["reason"]
    assert_promises(site, neighbours, files, receipts)
