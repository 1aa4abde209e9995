"""A study that is judged beside an earlier one of the patient, the whole way: what came last year is found, used and named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pydicom
import pytest

from tests.support.neighbours import SR, Neighbours, assert_promises
from tests.support.site import Site
from tests.support.two_series import BUNDLE, STUDY, write_two_series

pytestmark = [pytest.mark.neighbour, pytest.mark.slow]

EARLIER = "2.25.987654321"


def test_the_study_of_last_year_is_used(tmp_path: Path, neighbours: Neighbours) -> None:
    """Results and messages are of today's study and order; `explain` says which prior there was, and the log no date."""
    bundle = tmp_path / "bundle"
    shutil.copytree(BUNDLE, bundle)
    manifest = bundle / "hilum.yaml"
    manifest.write_text(manifest.read_text().replace("    missing: zeros", "    study: prior\n    missing: refuse"))
    sent = write_two_series(tmp_path / "images", prior=EARLIER)
    _comes_first(sent.flair[0])
    with Site(tmp_path / "site", neighbours.configuration(str(bundle))) as site:
        receipts = site.send(sent.flair)
        site.wait_for(lambda: [row["state"] for row in site.ledger.list_studies()] == ["unrouted"], "the earlier study")
        receipts |= site.send(sent.t1)
        (job,) = site.wait_for_jobs(1)
        assert job["state"] == "delivered", site.log
        assert job["study_uid"] == STUDY
        assert any("flair: registered rigidly" in flag for flag in job["outcome"]["flags"])
        told = json.loads(site.hilum("explain", STUDY, "--json").stdout)
        (prior,) = told["priors"]
        assert (prior["input"], prior["study_uid"], prior["study_date"]) == ("flair", EARLIER, "20250102")
        assert "2025" in site.hilum("explain", STUDY).stdout
        assert any(f"of the earlier study {EARLIER}" in event["detail"] for event in told["events"])
        assert "20250102" not in site.log
        (message,) = neighbours.ehr.messages
        assert b"EARLIER" not in message and STUDY.encode() in message
        assert neighbours.results(EARLIER).total() == 0, "nothing is added to the earlier study"
        (report,) = [one for one in neighbours.admin.instances_of(STUDY) if one.sop_class_uid == SR][:1]
        dataset = pydicom.dcmread(pydicom.filebase.BytesIO(neighbours.admin.download(report.sop_instance_uid)))
        listed = {str(study.StudyInstanceUID) for study in dataset.CurrentRequestedProcedureEvidenceSequence}
        assert listed == {STUDY, EARLIER}
        assert_promises(site, neighbours, [*sent.t1, *sent.flair], receipts)


def _comes_first(path: Path) -> None:
    """Among all images: whoever takes the first of a job's images for its study would name the earlier one."""
    image = pydicom.dcmread(path)
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    image.save_as(path)
