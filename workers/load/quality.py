"""What can be said of a volume's quality without knowing what is in it: a dozen figures, each with a meaning for people.

All of them are ratios, shares or physical sizes, so that another scanner's grid or units do not change them. Large
volumes are thinned out first: no figure needs more than two million voxels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, binary_dilation, binary_fill_holes, gaussian_filter

from workers.load.volume import Volume

_ENOUGH = 2_000_000  # voxels
_ROUGH = 500_000  # voxels that show where the object is
_SMOOTH = 3.0  # mm: noise and single ghosts are no part of the object
_SOLID = 2  # voxels around the object that are not yet air
_SIDE = 16  # voxels of a thumbnail along each axis
_QUANTILES = (25, 50, 75, 95)
_DEPTH = 200.0  # mm from the top: how much of the neck is in the images is chance
_GENTLE = 0.5  # dark tissue is tissue too: half of what separates bright from dark

WORDS = {
    "size": "the object in the images measures {value:.0f} ml",
    "noise": "noise is {value:.1%} of the signal",
    "air": "the signal around the object varies by {value:.1%} of that in it: ghosts of motion",
    "saturated": "{value:.1%} of the object is at the largest value: saturated",
    "empty": "{value:.1%} of the voxels around the object have exactly one value: masked, or painted over",
    "quartile": "the darker quarter of the object reaches {value:.1%} of its brightness: another contrast or modality",
    "median": "the middle of the object's intensities is at {value:.1%} of its brightness: another contrast or modality",
    "upper": "the brighter quarter of the object begins at {value:.1%} of its brightness: another contrast or modality",
    "bright": "the brightest twentieth of the object begins at {value:.1%} of its brightness: another contrast or modality",
    "sharp": "the sharpest edges are {value:.1f} mm wide: blurred, or too coarse",
    "cut": "the object fills {value:.0%} of a border of the images other than that to the feet: cut off",
    "likeness": "the images resemble the reference images by {value:.2f} only: another contrast, or another part of the body",
}
"""Figure -> a sentence for people with its value."""


def figures(volume: Volume) -> dict[str, float]:
    """Everything but the likeness, which needs reference images. Padding is taken for the darkest that was measured."""
    volume = _without_padding(volume)
    voxels, _ = _thinned(volume, _ENOUGH)
    inside = body(voxels)
    values = voxels[inside].astype(np.float64)
    top = float(np.percentile(values, 99)) if values.size else 0.0
    floor = float(voxels.min())
    scale = max(top - floor, 1e-9)
    low, middle, high, bright = ((np.percentile(values, q) - floor) / scale for q in _QUANTILES)
    return {
        **_outline(volume, scale),
        "noise": _noise(volume) / scale,
        "saturated": float((values == values.max()).mean()),
        "quartile": float(low),
        "median": float(middle),
        "upper": float(high),
        "bright": float(bright),
        "sharp": _edges(volume, scale),
    }


def _outline(volume: Volume, scale: float) -> dict[str, float]:
    """What follows from where the object ends."""
    voxels, smooth, affine, inside = _roughly(volume)
    around = smooth[~binary_fill_holes(binary_dilation(inside, iterations=_SOLID))]
    middle, high = np.percentile(around, (50, 90)) if around.size else (0.0, 0.0)
    box = _box(inside)
    values = voxels[box]
    if volume.outside is not None:
        step = _step(volume, _ROUGH)
        values = values[~volume.outside[::step, ::step, ::step][box]]
    _, counts = np.unique(values, return_counts=True)
    return {
        "size": float(inside.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000),
        "air": float((high - middle) / scale),
        "cut": _cut(inside, affine),
        "empty": float(counts.max() / counts.sum()) if counts.size else 0.0,
    }


def _box(inside: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The box that nearly all of the object lies in: how much air a scanner adds around it is chance."""
    index = np.argwhere(inside)
    if not index.size:
        return (slice(None),) * 3
    low, high = np.percentile(index, (1, 99), axis=0).astype(int)
    return tuple(slice(begin, end + 1) for begin, end in zip(low, high, strict=True))


def _roughly(
    volume: Volume,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_]]:
    """The volume, a blurred copy, its affine, and the object in it: neither noise nor ghosts are taken for it."""
    voxels, affine = _thinned(volume, _ROUGH)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    smooth = gaussian_filter(voxels.astype(np.float32), np.minimum(_SMOOTH / spacing, 4))
    return voxels, smooth, affine, body(smooth, gentle=1.0)


def thumbnail(volume: Volume) -> NDArray[np.float32]:
    """The object in its box, 16 x 16 x 16 voxels along left, back and head, from 0 to 1: what turns over, and what is there."""
    _, smooth, affine, inside = _roughly(_without_padding(volume))
    index = np.argwhere(inside)
    corners = affine[:3, :3] @ index.T + affine[:3, 3:4]
    low, high = np.percentile(corners, 0.5, axis=1), np.percentile(corners, 99.5, axis=1)
    low[2] = max(low[2], high[2] - _DEPTH)
    steps = np.maximum((high - low) / _SIDE, 1e-3)
    to_patient = np.eye(4)
    to_patient[:3, :3], to_patient[:3, 3] = np.diag(steps), low + steps / 2
    smooth = gaussian_filter(smooth, np.maximum(steps.mean() / np.linalg.norm(affine[:3, :3], axis=0) / 2.5, 0.1))
    sampled = affine_transform(
        smooth, np.linalg.inv(affine) @ to_patient, output_shape=(_SIDE,) * 3, order=1, mode="nearest"
    )
    sampled -= smooth.min()
    picture: NDArray[np.float32] = np.clip(sampled / max(float(np.percentile(sampled, 99)), 1e-9), 0, 1)
    return picture.astype(np.float32)


def likeness(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Correlation of two thumbnails, -1 to 1."""
    first, second = one - one.mean(), other - other.mean()
    length = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float((first * second).sum()) / length if length > 0 else 0.0


def turned_over(image: NDArray[np.float32], reference: NDArray[np.float32], margin: float = 0.03) -> str | None:
    """The axis along which the images resemble the reference more when they are turned over: `feet to head`, or nothing.

    Left and right of most bodies are too alike to be told apart.
    """
    best = likeness(image, reference) + margin
    found = None
    for axis, name in ((2, "feet to head"), (1, "front to back")):
        if (value := likeness(np.flip(image, axis), reference)) > best:
            best, found = value, name
    return found


def _without_padding(volume: Volume) -> Volume:
    outside = volume.outside
    if outside is None or outside.all():
        return replace(volume, outside=None)
    darkest = volume.voxels.min(where=~outside, initial=np.inf)
    return replace(volume, voxels=np.where(outside, darkest, volume.voxels))


def _step(volume: Volume, enough: int) -> int:
    step = 1
    while volume.voxels[::step, ::step, ::step].size > enough:
        step += 1
    return step


def _thinned(volume: Volume, enough: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    step = _step(volume, enough)
    affine = volume.affine.copy()
    affine[:3, :3] *= step
    return volume.voxels[::step, ::step, ::step], affine


def body(voxels: NDArray[np.float32], gentle: float = _GENTLE) -> NDArray[np.bool_]:
    """What is brighter than a part of Otsu's threshold (1979) on what lies below the 99th percentile."""
    low, high = float(voxels.min()), float(np.percentile(voxels, 99))
    if high <= low:
        return np.ones(voxels.shape, dtype=bool)
    counts, edges = np.histogram(voxels, bins=128, range=(low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    split = (below > 0) & (above > 0)
    if not split.any():
        return np.asarray(voxels > low)
    between = np.zeros(len(counts))
    parts = sums[split] / below[split] - (sums[-1] - sums[split]) / above[split]
    between[split] = below[split] * above[split] * parts**2
    best = int(between.argmax())
    return np.asarray(voxels > low + (float(edges[best + 1]) - low) * gentle)


def _noise(volume: Volume) -> float:
    """Standard deviation of noise by Immerkaer (1996), robustly, over sixteen slices: what a Laplacian leaves of tissue."""
    planes = volume.voxels[:: max(len(volume.voxels) // 16, 1)]
    if min(planes.shape[1:]) < 3:
        return 0.0
    p = planes.astype(np.float32)
    centre = 4 * p[:, 1:-1, 1:-1]
    sides = p[:, :-2, 1:-1] + p[:, 2:, 1:-1] + p[:, 1:-1, :-2] + p[:, 1:-1, 2:]
    corners = p[:, :-2, :-2] + p[:, :-2, 2:] + p[:, 2:, :-2] + p[:, 2:, 2:]
    left = np.abs(centre - 2 * sides + corners)
    left = left[left > 0]
    return float(np.median(left) / 0.6745 / 6) if left.size else 0.0


def _edges(volume: Volume, scale: float) -> float:
    """How many mm the sharpest edges within slices need from dark to bright; 0 where there is nothing to see."""
    planes = volume.voxels[:: max(len(volume.voxels) // 24, 1)]
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
    if min(planes.shape[1:]) < 2:
        return 0.0
    down = np.abs(np.diff(planes, axis=1))[:, :, 1:] / spacing[1]
    across = np.abs(np.diff(planes, axis=2))[:, 1:, :] / spacing[2]
    steepest = float(np.percentile(np.maximum(down, across), 99.9))
    return scale / steepest if steepest > 0 else 0.0


def _cut(inside: NDArray[np.bool_], affine: NDArray[np.float64]) -> float:
    """The largest share of a face that the object fills; the face towards the feet does not count."""
    worst = 0.0
    for axis in range(3):
        direction = affine[:3, axis]
        main = int(np.abs(direction).argmax())
        for end, sign in ((0, -1), (-1, 1)):
            towards_feet = main == 2 and np.sign(direction[2]) * sign < 0
            if not towards_feet:
                worst = max(worst, float(np.take(inside, end, axis=axis).mean()))
    return worst
