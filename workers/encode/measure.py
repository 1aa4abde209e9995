"""What is measured on labels: the definitions of docs/manifest.md, each in one place.

Lengths and volumes are taken in the patient's millimetres through the affine, never from the spacings of a header.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from gateway.bundle.manifest import Manifest
from gateway.bundle.output import MeasurementSpec
from gateway.domain.messages import MeasurementResult
from workers.load.masks import Labels, Masks
from workers.load.places import Finding
from workers.load.uneven import even_mask
from workers.load.volume import Volume

_PER_UNIT = {  # UCUM -> how many mm, mm2 or mm3
    "mm3": 1.0, "mL": 1e3, "ml": 1e3, "cm3": 1e3, "mm": 1.0, "cm": 10.0, "mm2": 1.0, "cm2": 100.0,
}  # fmt: skip

_EXACT = 6  # decimals of mm3 that do not depend on the order in which voxels were summed

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]


def measure(
    labels: Labels, volume: Volume, manifest: Manifest, findings: Sequence[Finding] = ()
) -> tuple[MeasurementResult, ...]:
    """Every quantity the manifest asks for, in its order and unit: of whole segments, then of each lesion.

    ``labels`` are on the volume's grid. A segment that is not there measures 0. Slices that were interpolated over a gap count:
    the tissue is there although its image is missing. Of what is not there mean and percentile do not exist, and are left out.
    """
    masks, output = Masks(labels), manifest.output
    least = {lesion.segment: lesion.smallest for lesion in output.lesions}
    found = []
    for spec in output.measurements:
        if spec.per == "segment":
            value = _value(spec, masks, volume, least.get(spec.segment, 0.0))
            if value is not None:
                found.append(_result(spec, value, segment=spec.segment))
    for finding in findings:
        for spec in output.measurements:
            if spec.per == "lesion" and finding.part is not None and spec.segment == finding.told.segment:
                value = _of(spec, finding.part.mask, volume, finding.part.place)
                found.append(_result(spec, value, finding=finding.told.number))
    return tuple(found)


def _result(
    spec: MeasurementSpec, value: float, *, segment: int | None = None, finding: int | None = None
) -> MeasurementResult:
    value /= _PER_UNIT.get(spec.unit.value, 1.0)
    return MeasurementResult(
        name=spec.name.code(), value=value, unit=spec.unit.code(), segment=segment, finding=finding
    )


def _value(spec: MeasurementSpec, masks: Masks, volume: Volume, least: float) -> float | None:
    """Of a whole segment, in mm, mm2, mm3, the images' own unit, or a number; parts under ``least`` mm3 do not count."""
    if spec.kind == "volume":
        return float(masks.counts[:, spec.segment] @ volume.voxel_volumes)
    mask = masks.of(spec.segment)
    if spec.kind == "count" and least > 0:
        return float(sum(at_least(each, least) for each in volumes(lesions(mask)[0], volume).tolist()))
    if spec.kind in ("mean", "percentile") and not mask.any():
        return None
    return _of(spec, mask, volume, (slice(None),) * 3)


def _of(spec: MeasurementSpec, mask: Mask, volume: Volume, place: tuple[slice, slice, slice]) -> float:
    """``mask`` is cut out of the volume at a place."""
    each = volume.voxel_volumes[place[0]]
    if spec.kind == "volume":
        return float(np.count_nonzero(mask, axis=(1, 2)) @ each)
    if spec.kind in ("mean", "percentile"):
        return _of_values(spec, volume.voxels[place][mask], np.repeat(each, np.count_nonzero(mask, axis=(1, 2))))
    if spec.kind == "surface":
        return surface(_even(mask, volume, place[0]), volume.affine)
    return _OF_MASK[spec.kind](mask, volume.affine)


def _of_values(spec: MeasurementSpec, values: NDArray[np.float32], weights: NDArray[np.float64]) -> float:
    """A voxel counts by its volume; of an even stack, each like the other."""
    if spec.kind == "mean":
        return float(np.average(values.astype(np.float64), weights=weights))
    if np.ptp(weights) == 0:
        return float(np.percentile(values, spec.percentile or 0.0))
    return float(np.percentile(values, spec.percentile or 0.0, weights=weights, method="inverted_cdf"))


def volumes(numbered: NDArray[np.int32], volume: Volume) -> NDArray[np.float64]:
    """mm3 of each numbered part, from number 1 on; rounded, so that parts of as many voxels are of one size."""
    most = int(numbered.max(initial=0))
    found = np.zeros(most)
    for plane, each in zip(numbered, volume.voxel_volumes, strict=True):
        found += np.bincount(plane.reshape(-1), minlength=most + 1)[1:] * each
    return found.round(_EXACT)


def at_least(size: float, least: float) -> bool:
    """Whether a part of so many mm3 is no smaller than asked for; one of just that size is not, however sums were rounded."""
    return size >= least - 10.0**-_EXACT


def _even(mask: Mask, volume: Volume, slices: slice) -> Mask:
    """A part of an uneven stack on even slices."""
    if not volume.places:
        return mask
    whole = np.zeros((len(volume.voxels), *mask.shape[1:]), bool)
    whole[slices] = mask
    return even_mask(whole, volume)


def lesions(mask: Mask) -> tuple[NDArray[np.int32], int]:
    """The connected parts of a mask, numbered from 1, and how many: voxels that share a face, an edge or a corner are one."""
    numbered, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    return numbered, int(count)


def diameters(mask: Mask, affine: NDArray[np.float64]) -> tuple[float, float]:
    """Longest and longest perpendicular diameter in mm, both on the slice where the longest is (RECIST 1.1, in-plane).

    Of the largest connected part in a slice, from outer edge to outer edge of pixels. 0, 0 of an empty mask.
    """
    best = (0.0, 0.0)
    for index in np.flatnonzero(mask.any(axis=(1, 2))):
        parts, count = ndimage.label(mask[index], structure=np.ones((3, 3)))
        for part in range(1, count + 1):
            best = max(best, _diameters_in_plane(_corners(parts == part, affine)))
    return best


def surface(mask: Mask, affine: NDArray[np.float64]) -> float:
    """Area in mm2 of the smooth surface between inside and outside, by the change of the mask's mean along all three axes.

    Counting the faces of voxels would give a ball 1.5 times its surface. This estimate (gradient magnitude of the mask after a
    Gaussian filter of one voxel) is right to a few per cent for anything thicker than four voxels.
    """
    if not mask.any():
        return 0.0
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    smooth = ndimage.gaussian_filter(np.pad(mask[box].astype(np.float64), 6), 1.0)
    by_index = np.stack(np.gradient(smooth))
    by_millimetre = np.linalg.inv(affine[:3, :3]).T @ by_index.reshape(3, -1)
    return float(np.linalg.norm(by_millimetre, axis=0).sum() * abs(np.linalg.det(affine[:3, :3])))


def _corners(part: Mask, affine: NDArray[np.float64]) -> Points:
    """Corners of a part's pixels in mm in the plane, only those that can be ends of a diameter."""
    rows, columns = np.nonzero(part & ~ndimage.binary_erosion(part))
    corners = np.concatenate([np.stack([rows + down, columns + right], 1) for down in (0, 1) for right in (0, 1)])
    spacing = np.linalg.norm(affine[:3, 1:3], axis=0)
    ends: Points = np.unique(corners, axis=0) * spacing
    return ends


def _diameters_in_plane(points: Points) -> tuple[float, float]:
    try:
        points = points[ConvexHull(points).vertices]
    except QhullError:  # not reached by corners of pixels, which never lie on one line
        return 0.0, 0.0
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    start, end = np.unravel_index(int(apart.argmax()), apart.shape)
    longest = float(apart[start, end])
    across = (points[end] - points[start]) / longest
    return longest, _widest_across(points, np.array([-across[1], across[0]]), across)


def _widest_across(hull: Points, normal: Points, along: Points) -> float:
    """The longest chord of a convex outline at right angles to its longest diameter."""
    ends = np.roll(hull, -1, axis=0)
    places = hull @ along
    widest = 0.0
    for place in places:
        first, second = places, ends @ along
        crossed = (np.minimum(first, second) <= place) & (place <= np.maximum(first, second)) & (first != second)
        part = (place - first[crossed]) / (second - first)[crossed]
        heights = (hull[crossed] + part[:, None] * (ends - hull)[crossed]) @ normal
        if heights.size:
            widest = max(widest, float(np.ptp(heights)))
    return widest


_OF_MASK: dict[str, Callable[[Mask, NDArray[np.float64]], float]] = {
    "longest_diameter": lambda mask, affine: diameters(mask, affine)[0],
    "perpendicular_diameter": lambda mask, affine: diameters(mask, affine)[1],
    "count": lambda mask, _: float(lesions(mask)[1]),
}
