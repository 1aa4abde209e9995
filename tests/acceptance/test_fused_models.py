"""Several models into one answer, the whole way: two really different networks, sent, combined, judged and delivered."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from gateway.bundle.files import read_manifest
from tests.conformance.conftest import run
from tests.support.fusions import builtin, write_fusion
from tests.support.head import head
from tests.support.neighbours import SEG, SR, Neighbours, assert_promises
from tests.support.series import write_series
from tests.support.site import Site
from tests.support.two_series import BUNDLE

pytestmark = [pytest.mark.neighbour, pytest.mark.slow]

PDF = "1.2.840.10008.5.1.4.1.1.104.1"
WHOLE_HEAD: dict[str, Any] = {
    "kind": "classification",
    "findings": [{"name": {"value": "69536005", "scheme": "SCT", "meaning": "Head"}, "threshold": 0.5}],
}


def test_two_networks_outline_one_brain(tmp_path: Path, neighbours: Neighbours) -> None:
    """A mask of the whole head and tissues of the head without its skull, another series: one brain on the whole head, and
    each part's own answer; where the second series is missing, the first model's answer with a word about it."""
    both, alone = _study(tmp_path / "both", "2.25.20260201"), _study(tmp_path / "alone", "2.25.20260202")
    fusion = write_fusion(
        tmp_path / "fusion",
        {
            "mask": (builtin("brain_mask"), {"weight": 0.6}),
            "tissue": (BUNDLE, {"weight": 0.4, "segments": {1: [1, 2, 3]}, "missing": "leave_out"}),
        },
        select='series.description == "MPRAGE"',
        agreement=0.9,
    )
    configuration = neighbours.configuration(str(fusion))
    configuration["models"] |= {"mask": {"bundle": "builtin:brain_mask"}, "tissue": {"bundle": str(BUNDLE)}}
    with Site(tmp_path / "site", configuration) as site:
        files = [file for series in both.values() for file in series]
        receipts = site.send(files)
        (job,) = site.wait_for_jobs(1)
        assert job["state"] == "delivered", site.log
        _assert_of_both(job["outcome"])
        objects = _downloaded(neighbours, job["study_uid"])
        _assert_on_the_head(next(one for one in objects if one.SOPClassUID == SEG), both["MPRAGE"])
        report, *_ = [one for one in objects if one.SOPClassUID == SR]
        assert f"Made of 2 models by weighted mean of probabilities: mask ({_build('brain_mask')}" in _words(report)
        listed = {
            str(one.SeriesInstanceUID)
            for one in report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        }
        assert {str(pydicom.dcmread(series[0]).SeriesInstanceUID) for series in both.values()} <= listed
        _assert_valid(objects, tmp_path / "objects")
        told = site.hilum("explain", job["study_uid"]).stdout
        assert "mask/image = 3, tissue/t1 = 4" in " ".join(told.split())
        receipts |= site.send(alone["MPRAGE"])
        second = next(each for each in site.wait_for_jobs(2) if each["id"] != job["id"])
        assert second["state"] == "delivered", site.log
        _assert_of_one(second["outcome"])
        assert_promises(site, neighbours, [*files, *alone["MPRAGE"]], receipts)


def test_rules_over_two_models(tmp_path: Path, neighbours: Neighbours) -> None:
    """A whole head is there where one network sees a face and another one finds a brain of an adult's size."""
    files = _study(tmp_path / "head", "2.25.20260203")["MPRAGE"]
    fusion = write_fusion(
        tmp_path / "fusion",
        {"face": (builtin("face_check"), {}), "brain": (builtin("brain_mask"), {})},
        WHOLE_HEAD,
        combine="rules",
        rules=['parts.brain.values["Brain Volume"] > 800.0 ? parts.face.findings["Face present"] : 0.0'],
    )
    configuration = neighbours.configuration(str(fusion))
    configuration["models"] |= {name: {"bundle": f"builtin:{name}"} for name in ("brain_mask", "face_check")}
    with Site(tmp_path / "site", configuration) as site:
        receipts = site.send(files)
        (job,) = site.wait_for_jobs(1)
        assert job["state"] == "delivered", site.log
        (said,) = job["outcome"]["measurements"]
        face, brain = job["outcome"]["parts"]
        assert said["value"] == pytest.approx(face["measurements"][0]["value"])
        assert said["value"] > 60
        assert said["verdict"][0]["meaning"] == "Present"
        assert brain["measurements"][0]["value"] == pytest.approx(1180, abs=15)
        assert "raw_probabilities" in face["provenance"], "calibrated, as it is alone"
        objects = _downloaded(neighbours, job["study_uid"])
        assert not [one for one in objects if one.SOPClassUID == SEG]
        (report,) = [one for one in objects if one.SOPClassUID == SR]
        assert f"Made of 2 models by rules: face ({_build('face_check')}" in _words(report)
        _assert_valid(objects, tmp_path / "objects")
        (message,) = neighbours.ehr.messages
        assert "Made of 2 models by rules" in message.decode()
        assert_promises(site, neighbours, files, receipts)


def _build(name: str) -> str:
    return f"{name} {read_manifest(builtin(name)).version}"


def _study(directory: Path, study: str) -> dict[str, list[Path]]:
    """The head, and the head without its skull in the same place, on every second of its slices."""
    whole = head()
    affine = whole.affine.copy()
    affine[:3, 0] *= 2
    series = {
        "MPRAGE": (whole.voxels, whole.affine, 3),
        "T1 brain": (np.where(whole.reference, whole.voxels, 0)[::2], affine, 4),
    }
    common = {"StudyInstanceUID": study, "FrameOfReferenceUID": f"{study}.1"}
    return {
        name: write_series(
            directory / str(number),
            voxels,
            place,
            seed=f"{name} {study}",
            attributes={**common, "SeriesDescription": name, "SeriesNumber": number},
        )
        for name, (voxels, place, number) in series.items()
    }


def _assert_of_both(outcome: dict[str, Any]) -> None:
    mask, tissue = outcome["parts"]
    assert (mask["weight"], tissue["weight"]) == (0.6, 0.4)
    assert (mask["model"]["name"], tissue["model"]["name"]) == ("brain_mask", "tissue_fusion")
    assert mask["measurements"][0]["value"] == pytest.approx(1180, abs=15), "as it is alone"
    assert [one["label"] for one in tissue["segments"]] == ["Grey matter", "White matter", "Bright spots"]
    assert mask["dice"]["Brain"] > 0.9
    assert 0.6 < tissue["dice"]["Brain"] < 0.9
    assert mask["provenance"]["weights"] != tissue["provenance"]["weights"]
    assert 0.6 < outcome["quality"]["parts_agreement"] < 0.9
    (sentence,) = [flag for flag in outcome["flags"] if flag.startswith("Made of")]
    assert f"mask ({_build('brain_mask')}, weight 0.60, Dice 0.9" in sentence
    assert "they do not agree: between them Dice is" in sentence


def _assert_of_one(outcome: dict[str, Any]) -> None:
    mask, tissue = outcome["parts"]
    assert (mask["weight"], mask["dice"]) == (1.0, {"Brain": 1.0})
    assert (tissue["weight"], bool(tissue["missing"]), tissue["measurements"]) == (0.0, True, [])
    assert any(flag.startswith("Without the part tissue (tissue_fusion): no series") for flag in outcome["flags"])
    assert any(flag.startswith("Made of one model") for flag in outcome["flags"])
    assert outcome["measurements"][0]["value"] == pytest.approx(1180, abs=15)


def _downloaded(neighbours: Neighbours, study: str) -> list[Dataset]:
    found = [
        pydicom.dcmread(BytesIO(neighbours.admin.download(one.sop_instance_uid)))
        for one in neighbours.admin.instances_of(study)
    ]
    assert {PDF, SR} <= {str(one.SOPClassUID) for one in found}
    return found


def _words(report: Dataset) -> str:
    return " ".join(str(element.value) for element in report.iterall() if element.VR == "UT")


def _assert_on_the_head(segmentation: Dataset, files: list[Path]) -> None:
    """What is painted, by its frames' positions in the patient, is the reference brain of the head."""
    whole = head()
    (series,) = segmentation.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == pydicom.dcmread(files[0]).SeriesInstanceUID
    painted = np.zeros(whole.reference.shape, bool)
    pixels = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    for frame, groups in zip(pixels, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        place = np.append(np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float), 1)
        index = np.linalg.solve(whole.affine, place)[:3]
        assert np.abs(index[1:]).max() < 1e-2
        painted[round(index[0])] = frame
    dice = 2 * (painted & whole.reference).sum() / (painted.sum() + whole.reference.sum())
    assert dice > 0.9, dice


def _assert_valid(objects: list[Dataset], directory: Path) -> None:
    """dciodvfy has no error and no warning but the known one."""
    directory.mkdir()
    for number, one in enumerate(objects):
        file = directory / f"{number}.dcm"
        one.save_as(file)
        done = run("dciodvfy", "-new", file)
        lines = (done.stdout + done.stderr).splitlines()
        wrong = [line for line in lines if line.startswith(("Error", "Warning")) and "DeviceUID" not in line]
        assert (one.SOPClassUID, wrong, done.returncode) == (one.SOPClassUID, [], 0)
