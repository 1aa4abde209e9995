"""A box in the patient as it shows on one slice."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from workers.encode.outline import Points
from workers.load.places import Box

_EDGES = [(a, b) for a, b in itertools.combinations(range(8), 2) if (a ^ b) in (1, 2, 4)]
_NEAR = 1e-6  # of a slice
NOTHING: Points = np.array([], np.float64).reshape(0, 2)


def reach(box: Box, affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """(8, 3): level (`Volume.levels`), row and column of the box's corners."""
    to_index = np.linalg.inv(affine)
    found: NDArray[np.float64] = np.asarray(box.corners @ to_index[:3, :3].T + to_index[:3, 3], np.float64)
    return found


def section(box: Box, affine: NDArray[np.float64], level: float, rows: int, columns: int) -> Points:
    """Where the box cuts the slice at a level, within the image: a closed outline as `workers.encode.outline` has them.

    A box that ends before the slice shows there as its nearest end does: whoever asks has chosen the slice. (0, 2) where
    nothing of it lies within the image.
    """
    corners = reach(box, affine)
    level = float(np.clip(level, corners[:, 0].min(), corners[:, 0].max()))
    met = []
    for one, other in _EDGES:
        start, end = corners[one], corners[other]
        apart = end[0] - start[0]
        if abs(apart) <= _NEAR:
            if abs(start[0] - level) <= _NEAR:
                met += [start[1:], end[1:]]
        elif -_NEAR <= (part := (level - start[0]) / apart) <= 1 + _NEAR:
            met.append(start[1:] + part * (end - start)[1:])
    return _within(np.array(met)[:, ::-1] + 0.5, rows, columns)


def _within(points: Points, rows: int, columns: int) -> Points:
    """The convex outline of points (column, row), cut off at the borders of the image."""
    try:
        outline = points[ConvexHull(points.round(6)).vertices]
    except (QhullError, ValueError):
        return NOTHING
    for axis, limit in ((0, columns), (1, rows)):
        outline = _cut(outline, axis, 0.0, 1.0)
        outline = _cut(outline, axis, float(limit), -1.0)
    if len(outline) < 3:
        return NOTHING
    first = int(np.lexsort((outline[:, 0].round(6), outline[:, 1].round(6)))[0])
    outline = np.roll(outline, -first, axis=0)
    return np.concatenate([outline, outline[:1]])


def _cut(outline: Points, axis: int, limit: float, side: float) -> Points:
    """What of a convex outline lies beyond a limit (Sutherland and Hodgman 1974)."""
    kept = []
    for start, end in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        here, there = side * (start[axis] - limit), side * (end[axis] - limit)
        if here >= 0:
            kept.append(start)
        if here * there < 0:
            kept.append(start + here / (here - there) * (end - start))
    return np.array(kept) if kept else NOTHING


def is_rectangle(outline: Points) -> bool:
    """Whether a closed outline has four sides along rows and columns."""
    ways = np.abs(np.diff(outline, axis=0))
    return len(ways) == 4 and bool((ways.min(axis=1) < 1e-3).all())


def area(outline: Points) -> float:
    """Of a closed outline, in pixels (Gauss)."""
    x, y = outline.T
    return 0.5 * abs(float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])))
