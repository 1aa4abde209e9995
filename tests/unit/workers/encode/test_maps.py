"""Which frames a parametric map has, in which order: viewers that go by number find each on its image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from tests.support.result_set import CASES, result_set, written


def _heights(dataset: Dataset) -> list[float]:
    """How far along the normal of rows and columns each frame lies."""
    orientation = dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
    normal = np.cross(orientation[:3], orientation[3:])
    places = [item.PlanePositionSequence[0].ImagePositionPatient for item in dataset.PerFrameFunctionalGroupsSequence]
    return [float(np.dot(np.array(place, float), normal)) for place in places]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.mapped])
def test_each_image_has_its_frame_along_the_normal(name: str) -> None:
    """The one without a number too."""
    heights = _heights(written(name).read("pm"))
    assert len(heights) == CASES[name].shape[0]
    assert heights == sorted(heights)


def test_of_a_large_volume_only_what_has_numbers_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first slice is all zero."""
    monkeypatch.setattr("workers.encode.pm._WHOLE", 1000)
    found = result_set(tmp_path, CASES["oblique"])
    found.verify()
    assert found.read("pm").NumberOfFrames == CASES["oblique"].shape[0] - 1


def test_the_region_is_the_images_own(tmp_path: Path) -> None:
    """By Body Part Examined, where it has a code of that name; else it is some structure."""
    regions = {}
    for part in ("CHEST", "BRAIN", "SOMEWHERE"):
        case = CASES["oblique"].__class__(
            affine=CASES["oblique"].affine, mapped=True, attributes={"BodyPartExamined": part}
        )
        shared = result_set(tmp_path / part, case).read("pm").SharedFunctionalGroupsSequence[0]
        regions[part] = shared.FrameAnatomySequence[0].AnatomicRegionSequence[0].CodeMeaning
    assert regions == {"CHEST": "Chest", "BRAIN": "Brain", "SOMEWHERE": "Anatomical Structure"}
