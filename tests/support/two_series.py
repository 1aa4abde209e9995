"""A T1 and a second contrast of one brain as two series that a scanner could have sent, and where the spots really are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.contrasts import Affine, flair, moved, resampled, spots, template
from tests.support.series import write_series

BUNDLE = Path(__file__).parents[1] / "bundles" / "tissue_fusion"
PLACES = ((26.0, 12.0, 24.0), (-24.0, 30.0, 30.0), (20.0, -28.0, 22.0))  # LPS mm of the T1
RADII = (7.0, 6.0, 7.0)
MOTION = ((6.0, -8.0, 11.0), (9.0, -14.0, 12.0))  # how the head lay in the second scan
STUDY = "2.25.20260102"


@dataclass(frozen=True, kw_only=True)
class TwoSeries:
    """What was written."""

    t1: list[Path]
    flair: list[Path]
    spots: NDArray[np.bool_]  # on the T1's grid, (slices, rows, columns)
    affine: Affine  # of the T1, to LPS mm
    motion: Affine  # LPS mm of the T1 to those of the second series


def write_two_series(
    directory: Path, *, same_frame: bool = False, study: str = STUDY, noise: float = 0.01, prior: str = ""
) -> TwoSeries:
    """Writes both; the second on a coarser grid, with the head turned and shifted, unless ``same_frame``.

    It is of a study of its own, of another order in the year before, where ``prior`` is the UID of one.
    """
    brain = template(2.0)
    there = spots(brain.t1.shape, brain.affine, PLACES, RADII)
    motion = np.eye(4) if same_frame else moved(*MOTION)
    shape = (64, 84, 72)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]) * np.array([3.0, 2.5, 2.5])
    middle = motion @ brain.affine @ np.append((np.array(brain.t1.shape) - 1) / 2, 1)
    affine[:3, 3] = middle[:3] - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    second = resampled(flair(brain.t1, there), motion @ brain.affine, affine, shape)
    random = np.random.default_rng(7)
    pictures = [
        np.clip(each + random.normal(0, noise, each.shape) * (each > 0), 0, None) for each in (brain.t1, second)
    ]
    common: dict[str, Any] = {"StudyInstanceUID": study, "StudyDate": "20260102"}
    earlier = {"StudyInstanceUID": prior, "StudyDate": "20250102", "AccessionNumber": "EARLIER"} if prior else {}
    frame = {"FrameOfReferenceUID": f"{study}.1"}
    other = frame if same_frame else {"FrameOfReferenceUID": f"{study}.2"}
    return TwoSeries(
        t1=write_series(
            directory / "t1", pictures[0] * 1000, brain.affine, seed=f"t1 {study}",
            attributes={**common, **frame, "SeriesDescription": "T1 3D", "SeriesNumber": 3},
        ),
        flair=write_series(
            directory / "flair", pictures[1] * 800, affine, seed=f"flair {study}",
            attributes={**common, **earlier, **other, "SeriesDescription": "FLAIR", "SeriesNumber": 4},
        ),
        spots=there,
        affine=brain.affine,
        motion=motion,
    )  # fmt: skip
