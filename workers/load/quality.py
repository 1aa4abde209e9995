"""What can be said of a volume's quality without knowing what is in it: a dozen figures, each with a meaning for people.

All of them are ratios, shares or physical sizes, so that another scanner's grid or units do not change them. Large
volumes are thinned out first: no figure needs more than two million voxels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter

from workers.load.volume import Volume

_ENOUGH = 2_000_000  # voxels
_SIDE = 16  # voxels of a thumbnail along each axis
_QUANTILES = (25, 50, 75, 95)
_DEPTH = 200.0  # mm from the top: how much of the neck is in the images is chance
_GENTLE = 0.5  # dark tissue is tissue too: half of what separates bright from dark

WORDS = {
    "size": "the object in the images measures {value:.0f} ml",
    "noise": "noise is {value:.1%} of the signal",
    "air": "the signal around the object is {value:.1%} of that in it: ghosts of motion, or noise",
    "saturated": "{value:.1%} of the object is at the largest value: saturated",
    "empty": "{value:.1%} of all voxels have exactly one value: masked, or painted over",
    "quartile": "the darker quarter of the object reaches {value:.1%} of its brightness",
    "median": "the middle of the object's intensities is at {value:.1%} of its brightness",
    "upper": "the brighter quarter of the object begins at {value:.1%} of its brightness",
    "bright": "the brightest twentieth of the object begins at {value:.1%} of its brightness",
    "cut": "the object fills {value:.0%} of a border of the images other than that to the feet: cut off",
    "likeness": "the images resemble the reference images by {value:.2f}",
}
"""Figure -> a sentence for people with its value."""


def figures(volume: Volume) -> dict[str, float]:
    """Everything but the likeness, which needs reference images."""
    voxels, affine, measured = _thinned(volume)
    inside = body(voxels, measured)
    values = voxels[inside].astype(np.float64)
    top = float(np.percentile(values, 99)) if values.size else 0.0
    floor = float(voxels[measured].min())
    scale = max(top - floor, 1e-9)
    low, middle, high, bright = ((np.percentile(values, q) - floor) / scale for q in _QUANTILES)
    _, counts = np.unique(voxels[measured], return_counts=True)
    around = measured & ~inside
    return {
        "size": float(inside.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000),
        "noise": _noise(volume) / scale,
        "air": float((voxels[around].mean() - floor) / scale) if around.any() else 0.0,
        "saturated": float((values == values.max()).mean()),
        "empty": float(counts.max() / counts.sum()),
        "quartile": float(low),
        "median": float(middle),
        "upper": float(high),
        "bright": float(bright),
        "cut": _cut(inside, affine),
    }


def thumbnail(volume: Volume) -> NDArray[np.float32]:
    """The object in its box, 16 x 16 x 16 voxels along left, back and head, from 0 to 1: what turns over, and what is there."""
    voxels, affine, measured = _thinned(volume)
    inside = body(voxels, measured)
    index = np.argwhere(inside)
    corners = affine[:3, :3] @ index.T + affine[:3, 3:4]
    low, high = np.percentile(corners, 0.5, axis=1), np.percentile(corners, 99.5, axis=1)
    low[2] = max(low[2], high[2] - _DEPTH)
    steps = np.maximum((high - low) / _SIDE, 1e-3)
    to_patient = np.eye(4)
    to_patient[:3, :3], to_patient[:3, 3] = np.diag(steps), low + steps / 2
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    smooth = gaussian_filter(voxels.astype(np.float32), np.maximum(steps.mean() / spacing / 2.5, 0.1))
    sampled = affine_transform(
        smooth, np.linalg.inv(affine) @ to_patient, output_shape=(_SIDE,) * 3, order=1, mode="nearest"
    )
    sampled -= voxels.min()
    picture: NDArray[np.float32] = np.clip(sampled / max(float(np.percentile(sampled, 99)), 1e-9), 0, 1)
    return picture.astype(np.float32)


def likeness(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Correlation of two thumbnails, -1 to 1."""
    first, second = one - one.mean(), other - other.mean()
    length = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float((first * second).sum()) / length if length > 0 else 0.0


def turned_over(image: NDArray[np.float32], reference: NDArray[np.float32], margin: float = 0.1) -> str | None:
    """The axis along which the images resemble the reference more when they are turned over: `feet to head`, or nothing.

    Left and right of most bodies are too alike to be told apart.
    """
    best = likeness(image, reference) + margin
    found = None
    for axis, name in ((2, "feet to head"), (1, "front to back")):
        if (value := likeness(np.flip(image, axis), reference)) > best:
            best, found = value, name
    return found


def _thinned(volume: Volume) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_]]:
    """Voxels, affine, and which voxels were measured and are no padding."""
    step = 1
    while volume.voxels[::step, ::step, ::step].size > _ENOUGH:
        step += 1
    affine = volume.affine.copy()
    affine[:3, :3] *= step
    voxels = volume.voxels[::step, ::step, ::step]
    outside = None if volume.outside is None else volume.outside[::step, ::step, ::step]
    return voxels, affine, np.ones(voxels.shape, bool) if outside is None or outside.all() else ~outside


def body(voxels: NDArray[np.float32], measured: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """What is brighter than Otsu's threshold (1979) on the part below the 99th percentile, of what was measured."""
    values = voxels if measured is None else voxels[measured]
    low, high = float(values.min()), float(np.percentile(values, 99))
    if high <= low:
        return np.ones(voxels.shape, dtype=bool)
    counts, edges = np.histogram(values, bins=128, range=(low, high))
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
    found = np.asarray(voxels > low + (float(edges[best + 1]) - low) * _GENTLE)
    return found if measured is None else found & measured


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
