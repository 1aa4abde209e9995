"""Two series into one network, the whole way: sent, registered, labelled, and right by geometry in the PACS."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from tests.support.neighbours import SEG, SR, Neighbours, assert_promises
from tests.support.site import Site
from tests.support.two_series import BUNDLE, TwoSeries, write_two_series

pytestmark = [pytest.mark.neighbour, pytest.mark.slow]


def test_two_series_become_one_result_on_the_first(tmp_path: Path, neighbours: Neighbours) -> None:
    """Spots that only the second series shows, which lay 53 mm elsewhere, are found where they are in the first; a study
    without the second series is done without, and says so."""
    both = write_two_series(tmp_path / "both")
    alone = write_two_series(tmp_path / "alone", study="2.25.20260103")
    configuration: dict[str, Any] = neighbours.configuration(str(BUNDLE))
    with Site(tmp_path / "site", configuration) as site:
        receipts = site.send([*both.t1, *both.flair])
        (job,) = site.wait_for_jobs(1)
        assert job["state"] == "delivered", site.log
        assert "registered rigidly" in job["outcome"]["flags"][0]
        receipts |= site.send(alone.t1)
        second = next(each for each in site.wait_for_jobs(2) if each["id"] != job["id"])
        assert second["state"] == "delivered", site.log
        _assert_right(_downloaded(neighbours, job["study_uid"], SEG), both)
        _assert_sources_named(_downloaded(neighbours, job["study_uid"], SR), both)
        assert "There was no series for the input flair" in second["outcome"]["flags"][0]
        assert second["outcome"]["measurements"][2]["value"] == 0.0
        assert second["outcome"]["measurements"][1]["value"] > 300
        assert_promises(site, neighbours, [*both.t1, *both.flair, *alone.t1], receipts)


def _downloaded(neighbours: Neighbours, study: str, sop_class: str) -> list[Dataset]:
    found = [item for item in neighbours.admin.instances_of(study) if item.sop_class_uid == sop_class]
    return [pydicom.dcmread(pydicom.filebase.BytesIO(neighbours.admin.download(one.sop_instance_uid))) for one in found]


def _assert_right(segmentations: list[Dataset], sent: TwoSeries) -> None:
    """The painted spots, by nothing but their frames' positions in the patient, are the spots of the T1."""
    (segmentation,) = segmentations
    first = pydicom.dcmread(sent.t1[0])
    assert segmentation.FrameOfReferenceUID == first.FrameOfReferenceUID
    (series,) = segmentation.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == first.SeriesInstanceUID
    painted = np.zeros(sent.spots.shape, bool)
    for frame, groups in zip(_frames(segmentation), segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        if groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 3:
            place = np.append(np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float), 1)
            index = np.linalg.solve(sent.affine, place)
            assert np.abs(index[:3] - np.round(index[:3])).max() < 1e-2
            assert np.abs(index[1:3]).max() < 1e-2
            painted[round(index[0])] = frame
    dice = 2.0 * (painted & sent.spots).sum() / (painted.sum() + sent.spots.sum())
    assert dice > 0.7, dice
    for number in range(3):
        apart = _middle(painted, sent, number) - _middle(sent.spots, sent, number)
        assert np.linalg.norm(apart) < 2.0, "mm between a spot and what was painted there"


def _frames(segmentation: Dataset) -> NDArray[np.bool_]:
    pixels = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    return np.asarray(pixels, bool)


def _middle(mask: NDArray[np.bool_], sent: TwoSeries, number: int) -> NDArray[np.float64]:
    """Centre in mm of what is painted within 12 mm of a spot."""
    from tests.support.two_series import PLACES

    at = np.argwhere(mask) @ sent.affine[:3, :3].T + sent.affine[:3, 3]
    near = at[np.linalg.norm(at - np.array(PLACES[number]), axis=1) < 12]
    middle: NDArray[np.float64] = near.mean(axis=0)
    return middle


def _assert_sources_named(reports: list[Dataset], sent: TwoSeries) -> None:
    """Every image of both series is in the evidence of each report, under its series."""
    expected = Counter(
        {str(pydicom.dcmread(files[0]).SeriesInstanceUID): len(files) for files in (sent.t1, sent.flair)}
    )
    assert reports
    for report in reports:
        listed: Counter[str] = Counter()
        for study in report.CurrentRequestedProcedureEvidenceSequence:
            for series in study.ReferencedSeriesSequence:
                listed[str(series.SeriesInstanceUID)] += len(series.ReferencedSOPSequence)
        assert {uid: listed[uid] for uid in expected} == dict(expected)
