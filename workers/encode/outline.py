"""Where to look: the slice that shows most of a segment, and the outline of its largest part there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Points = NDArray[np.float64]
"""(points, 2), column and row in pixels; 0, 0 is the outer corner of the first pixel (PS3.3 C.18.6.1)."""

# Graphic Data in Explicit VR has a 16 bit length (PS3.5 7.1.2): 8191 points of two 4 byte numbers.
MAX_POINTS = 8000


@dataclass(frozen=True, kw_only=True)
class Region:
    """A closed outline on one slice; the first point comes again at the end."""

    slice: int
    points: Points
    pixels: float  # inside the outline; 0 where nothing was found and the outline is that of the whole image


def key_region(mask: NDArray[np.bool_], candidates: tuple[int, ...]) -> Region:
    """The largest connected part, holes filled, on the candidate slice with most of the mask.

    ``mask`` is (slices, rows, columns). Where no candidate has any of it, the outline is that of the middle candidate as a
    whole: what was looked at.
    """
    counts = mask[list(candidates)].sum(axis=(1, 2))
    if not counts.any():
        return whole_image(candidates[len(candidates) // 2], mask.shape[1:])
    index = candidates[int(counts.argmax())]
    part = _largest_part(mask[index])
    while len(points := _outline(part)) > MAX_POINTS:
        part = _larger_half(part)
    return Region(slice=index, points=points, pixels=int(part.sum()))


def whole_image(index: int, shape: tuple[int, ...]) -> Region:
    """The frame of an image: what was looked at."""
    return Region(slice=index, points=_outline(np.ones(shape, dtype=bool)), pixels=0)


def _larger_half(part: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Cuts a part with too frayed an outline in two across its longer side and takes the half with more pixels."""
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    half = np.zeros_like(part)
    if np.ptp(rows) >= np.ptp(columns):
        half[: (rows[0] + rows[-1] + 1) // 2] = True
    else:
        half[:, : (columns[0] + columns[-1] + 1) // 2] = True
    return _largest_part(max(part & half, part & ~half, key=np.count_nonzero))


def _largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, _ = ndimage.label(mask)
    sizes = np.bincount(parts.reshape(-1))
    sizes[0] = 0
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(parts == sizes.argmax())
    return filled


def _outline(part: NDArray[np.bool_]) -> Points:
    """Along the edges of pixels, so that the polygon encloses exactly the part's area.

    The part is connected and without holes, both by edges: then every corner on its boundary has one edge that leaves it.
    """
    following = _edges(part)
    start = corner = min(following, key=lambda point: (point[1], point[0]))
    path = [start]
    while (corner := following[corner]) != start:
        path.append(corner)
    points = np.array([*path, start], dtype=np.float64)
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns = np.any(before != after, axis=1)
    turns[[0, -1]] = True
    return points[turns]


def _edges(part: NDArray[np.bool_]) -> dict[tuple[int, int], tuple[int, int]]:
    """Boundary edges as corner -> next corner (column, row), clockwise on the screen."""
    padded = np.pad(part, 1)
    inner = padded[1:-1, 1:-1]
    sides = (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),  # top, to the right
        (padded[1:-1, 2:], (1, 0), (1, 1)),  # right, down
        (padded[2:, 1:-1], (1, 1), (0, 1)),  # bottom, to the left
        (padded[1:-1, :-2], (0, 1), (0, 0)),  # left, up
    )
    edges = {}
    for neighbour, (x0, y0), (x1, y1) in sides:
        for row, column in np.argwhere(inner & ~neighbour).tolist():
            edges[column + x0, row + y0] = (column + x1, row + y1)
    return edges
