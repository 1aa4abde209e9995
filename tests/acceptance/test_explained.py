"""A classifier that says why, all the way: `face_check` by rule, its reasons in the archive and its confidence in the EHR."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest

from tests.support.head import write_head
from tests.support.neighbours import SEG, SR, Neighbours, assert_promises
from tests.support.site import Site

PM = "1.2.840.10008.5.1.4.1.1.30"
SC = "1.2.840.10008.5.1.4.1.1.7"

pytestmark = [pytest.mark.neighbour, pytest.mark.slow]


def test_a_face_is_found_and_the_archive_shows_why(tmp_path: Path, neighbours: Neighbours) -> None:
    files = write_head(tmp_path / "head")
    with Site(tmp_path / "site", neighbours.configuration("builtin:face_check")) as site:
        receipts = site.send(files)
        (job,) = site.wait_for_jobs(1)
        assert job["state"] == "delivered", site.log
        results = neighbours.results(job["study_uid"])
        assert (results[SR], results[PM], results[SC], results[SEG]) == (1, 1, 4, 0)
        face, removed, _ = job["outcome"]["measurements"]
        assert face["value"] > 60 > 40 > removed["value"]
        assert face["confidence"]
        raw = [float(number) for number in job["outcome"]["provenance"]["raw_probabilities"].split(", ")]
        assert sum(raw) == pytest.approx(1, abs=1e-4)
        assert abs(100 * raw[0] - face["value"]) > 0.1  # calibrated
        (why,) = job["outcome"]["explanations"]
        assert (why["shown"], why["of"]["value"]) == (True, "face-present")
        assert why["scores"]["deletion"] < why["scores"]["deletion_random"]
        _assert_on_the_head(neighbours, job["study_uid"], files, tmp_path / "pm.dcm")
        (message,) = neighbours.ehr.messages
        confidence = {"high": "AI-HIGH", "moderate": "AI-MODERATE", "low": "AI-LOW"}[face["confidence"]]
        (observed,) = [line for line in message.decode().split("\r") if "face-present" in line]
        assert observed.split("|")[8].split("~")[0] == confidence
        assert "explanation, not a finding" in message.decode()
        told = json.loads(site.hilum("explain", job["study_uid"], "--json").stdout)
        assert "explanation, not a finding" in json.dumps(told)
        assert_promises(site, neighbours, files, receipts)


def _assert_on_the_head(neighbours: Neighbours, study: str, files: list[Path], file: Path) -> None:
    """The map lies on the slices it names, and there on the head: there is nothing in the air that could speak for anything."""
    (item,) = [one for one in neighbours.admin.instances_of(study) if one.sop_class_uid == PM]
    file.write_bytes(neighbours.admin.download(item.sop_instance_uid))
    found = pydicom.dcmread(file)
    values = np.frombuffer(found.FloatPixelData, "<f4").reshape(-1, found.Rows, found.Columns)
    assert values.max() == pytest.approx(1)
    slices = {one.SOPInstanceUID: one.pixel_array for one in map(pydicom.dcmread, files)}
    named = [
        group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        for group in found.PerFrameFunctionalGroupsSequence
    ]
    voxels = np.stack([slices[uid] for uid in named])
    bright = voxels > 0.2 * np.percentile(voxels, 99)
    assert values[bright].sum() > 3 * values[~bright].sum()
