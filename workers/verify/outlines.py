"""Does each outline in the report lie on the segment it speaks of, with the area it claims?"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy import ndimage

from workers.verify.evidence import Evidence, Result
from workers.verify.report import groups, is_area, numbers, tracking_uid, value_of


def check_outlines(result: Result, evidence: Evidence, segment_of: dict[str, int]) -> None:
    """Every number has one closed 2D outline on an image of the input (OHIF opens nothing else), on its segment there."""
    for group in groups(result):
        segment = segment_of[tracking_uid(result, group)]
        items = numbers(group)
        areas = [value_of(item) for item in items if is_area(item)]
        if len(areas) != 1 or areas[0][1] != ("mm2", "UCUM"):
            raise result.refuse("outline", f"segment {segment} does not have one area in mm2")
        for item in items:
            pixels = _pixels_on_segment(result, evidence, segment, item)
            _, between_rows, between_columns = evidence.volume.spacing
            if not math.isclose(areas[0][0], pixels * between_rows * between_columns, rel_tol=1e-6, abs_tol=1e-9):
                raise result.refuse("outline", f"the area of segment {segment} is not that of its outline")


def _pixels_on_segment(result: Result, evidence: Evidence, segment: int, item: Dataset) -> int:
    """How many pixels the outline of a number encloses; 0 for the outline of a whole image where nothing was found."""
    index, points = _outline(result, evidence, item)
    inside = enclosed(points, *evidence.masks.shape[1:])
    slices = list(evidence.slice_of.values())
    if inside.all() and not evidence.masks.counts[slices, segment].any():
        return 0
    filled = ndimage.binary_fill_holes(evidence.masks.on(index, segment))
    if not inside.any() or (inside & ~filled).any():
        raise result.refuse("outline", f"the outline of segment {segment} does not lie on the segment")
    return int(inside.sum())


def _outline(result: Result, evidence: Evidence, item: Dataset) -> tuple[int, NDArray[np.float64]]:
    places = list(item.get("ContentSequence") or ())
    if len(places) != 1 or places[0].get("ValueType") != "SCOORD" or places[0].get("GraphicType") != "POLYLINE":
        raise result.refuse("no_outline", "a number does not stand on exactly one 2D outline")
    images = [
        evidence.slice_at(target)
        for image in places[0].get("ContentSequence") or ()
        for target in image.get("ReferencedSOPSequence") or ()
    ]
    if len(images) != 1 or images[0] is None:
        raise result.refuse("no_outline", "an outline does not lie on exactly one image of the input")
    points = np.array(places[0].get("GraphicData") or (), dtype=np.float64)
    if len(points) < 8 or len(points) % 2 or not np.array_equal(points[:2], points[-2:]):
        raise result.refuse("outline", "an outline is not closed")
    return images[0], points.reshape(-1, 2)


def enclosed(points: NDArray[np.float64], rows: int, columns: int) -> NDArray[np.bool_]:
    """Pixels whose centre lies inside a polygon of (column, row) points, by counting crossings to the left of it."""
    crossings = np.zeros((rows, columns + 1), dtype=np.int32)
    for (x0, y0), (x1, y1) in itertools.pairwise(points.tolist()):
        low, high = sorted((y0, y1))
        hit = np.arange(max(0, math.ceil(low - 0.5)), min(rows, math.ceil(high - 0.5)))
        if hit.size:
            x = x0 + (hit + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            crossings[hit, np.clip(np.ceil(x - 0.5), 0, columns).astype(int)] += 1
    odd: NDArray[np.bool_] = np.cumsum(crossings, axis=1)[:, :columns] % 2 == 1
    return odd
