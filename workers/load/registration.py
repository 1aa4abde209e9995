"""Two volumes of one body in one place: how one must be moved rigidly onto the other, and how well they then agree.

The search is SimpleITK's (Mattes' mutual information, so that contrasts may differ), on a coarse copy of both in the patient's
axes: no scanner's grid, oblique or sheared, makes a difference. It is deterministic: regular sampling, one thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter

from workers.load.quality import body
from workers.load.volume import Volume

_STEP = 2.5  # mm between voxels of the coarse copies
_MOST = 128  # of them along an axis
_BINS = 32
_SEED = 1
_Levels = tuple[tuple[int, float, float], ...]  # shrink factor, smoothing in mm, share of voxels looked at

Grid = NDArray[np.float32]
Affine = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Where a second volume's places are, as seen from the first."""

    motion: Affine  # 4 x 4, LPS mm of the first to LPS mm of the second
    registered: bool  # or taken as it stands, in one frame of reference
    agreement: float  # 0 to 1: mutual information within the first one's body, as a share of the mean entropy
    overlap: float  # share of the first one's body that the second one's grid covers

    @property
    def shift(self) -> float:
        """The longest way in mm that any place in a 200 mm cube around the body moves."""
        corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)], float) * [200, 200, 200, 1] - [
            100,
            100,
            100,
            0,
        ]
        return float(np.linalg.norm(((self.motion - np.eye(4)) @ corners.T)[:3], axis=0).max())

    @property
    def degrees(self) -> float:
        """By how much it is turned."""
        cosine = (float(np.trace(self.motion[:3, :3])) - 1) / 2
        return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def align(first: Volume, second: Volume, *, search: bool) -> Alignment:
    """Compares two volumes as they stand, or after the best rigid motion of ``second``."""
    fixed, fixed_affine = _coarse(first)
    moving, moving_affine = _coarse(second)
    inside = body(fixed)
    motion = np.eye(4)
    if search:
        motion = register((fixed, fixed_affine), (moving, moving_affine), inside)
    moved = resample(moving, moving_affine, motion, fixed_affine, fixed.shape, outside=np.nan)
    covered = np.isfinite(moved)
    overlap = float((inside & covered).sum() / max(inside.sum(), 1))
    both = inside & covered
    agreement = shared_information(fixed[both], moved[both]) if both.sum() > _BINS**2 else 0.0
    return Alignment(motion=motion, registered=search, agreement=agreement, overlap=overlap)


def resample(
    voxels: Grid, affine: Affine, motion: Affine, target: Affine, shape: tuple[int, ...], *, outside: float = 0.0
) -> Grid:
    """A volume on another grid, linearly; ``motion`` goes from the target's mm to the volume's."""
    to_source = np.linalg.inv(affine) @ motion @ target
    found: Grid = affine_transform(
        voxels, to_source[:3, :3], to_source[:3, 3], output_shape=shape, order=1, mode="constant", cval=outside
    )
    return found


def shared_information(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """2 I(A;B) / (H(A) + H(B)) of two equally long lists of intensities: 0 strangers, 1 the same but for their scale."""
    joint, _, _ = np.histogram2d(_clipped(one), _clipped(other), bins=_BINS)
    share = joint / max(joint.sum(), 1.0)
    first, second, both = (_entropy(each) for each in (share.sum(axis=1), share.sum(axis=0), share.ravel()))
    return float(2 * (first + second - both) / max(first + second, 1e-9))


def register(fixed: tuple[Grid, Affine], moving: tuple[Grid, Affine], inside: NDArray[np.bool_]) -> Affine:
    """The rigid motion, LPS mm of ``fixed`` to LPS mm of ``moving``, of two volumes whose axes are the patient's.

    Tried from three starts (as they stand, centre on centre, body on body), since a search finds the nearest hill.
    """
    sitk: Any = import_module("SimpleITK")  # here, so that a model of one series does not wait for it
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    one, two = _image(sitk, *fixed), _image(sitk, *moving)
    centre = _middle(inside, fixed[1])
    starts = []
    for shift in (
        np.zeros(3),
        _grid_middle(moving) - _grid_middle(fixed),
        _middle(body(moving[0]), moving[1]) - centre,
    ):
        start = sitk.Euler3DTransform()
        start.SetCenter(centre.tolist())
        start.SetTranslation(shift.tolist())
        starts.append(_searched(sitk, one, two, start, levels=((4, 6.0, 1.0),)))
    best = min(starts, key=lambda found: found[0])[1]
    found = _searched(sitk, one, two, best, levels=((2, 3.0, 0.8), (1, 0.0, 0.15)))[1]
    motion = np.eye(4)
    motion[:3, :3] = np.array(found.GetMatrix()).reshape(3, 3)
    motion[:3, 3] = found.TransformPoint((0.0, 0.0, 0.0))
    return motion


def _searched(sitk: Any, fixed: Any, moving: Any, start: Any, levels: _Levels) -> tuple[float, Any]:
    """Metric (less is better) and transform at the end of the search; a search that leaves the images is worth nothing."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(_BINS)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentagePerLevel([share for _, _, share in levels], _SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 0.005, 120, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([shrink for shrink, _, _ in levels])
    method.SetSmoothingSigmasPerLevel([sigma for _, sigma, _ in levels])
    found = sitk.Euler3DTransform(start)
    method.SetInitialTransform(found, inPlace=True)
    try:
        method.Execute(fixed, moving)
    except RuntimeError:  # nothing of one lies on the other
        return 0.0, start
    return method.GetMetricValue(), found


def _coarse(volume: Volume) -> tuple[Grid, Affine]:
    """A copy along the patient's axes, (z, y, x), a few mm fine."""
    shape = np.array(volume.voxels.shape)
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)], float) * [*(shape - 1), 1]
    places = (volume.affine @ corners.T)[:3]
    low, high = places.min(axis=1), places.max(axis=1)
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
    step = max(_STEP, float(np.median(spacing)), float((high - low).max()) / _MOST)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]) * step, low
    count = tuple(int(n) for n in np.ceil((high - low) / step)[::-1] + 1)
    smooth = gaussian_filter(volume.voxels, np.maximum(step / spacing - 1, 0) / 2.5)
    return resample(smooth, volume.affine, np.eye(4), affine, count, outside=float(volume.voxels.min())), affine


def _image(sitk: Any, voxels: Grid, affine: Affine) -> Any:
    image = sitk.GetImageFromArray(voxels)  # arrays are (z, y, x)
    image.SetSpacing([float(affine[0, 2])] * 3)
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def _middle(inside: NDArray[np.bool_], affine: Affine) -> NDArray[np.float64]:
    place: NDArray[np.float64] = affine[:3, :3] @ np.argwhere(inside).mean(axis=0) + affine[:3, 3]
    return place


def _grid_middle(of: tuple[Grid, Affine]) -> NDArray[np.float64]:
    place: NDArray[np.float64] = of[1][:3, :3] @ ((np.array(of[0].shape) - 1) / 2) + of[1][:3, 3]
    return place


def _clipped(values: NDArray[np.float32]) -> NDArray[np.float32]:
    low, high = np.percentile(values, (0.5, 99.5))
    return np.clip(values, low, high)


def _entropy(share: NDArray[np.float64]) -> float:
    there = share[share > 0]
    return float(-(there * np.log2(there)).sum())
