"""Does each outline in the report lie on the segment it speaks of, with the area it claims?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy import ndimage

from workers.verify.evidence import Evidence, Result
from workers.verify.report import is_area, numbers, value_of

_ROUNDED = 1e-3  # pixels; coordinates are 4 byte numbers


def check_outlines(result: Result, evidence: Evidence, found: dict[int, Dataset]) -> None:
    """Every number of a segment has one closed 2D outline on an image of the input (OHIF opens nothing else), on its segment
    there. ``found`` has the group of each segment."""
    for segment, group in found.items():
        items = numbers(group)
        areas = [value_of(item) for item in items if is_area(item)]
        if len(areas) != 1 or areas[0][1] != ("mm2", "UCUM"):
            raise result.refuse("outline", f"segment {segment} does not have one area in mm2")
        for item in items:
            pixels = _pixels_on_segment(result, evidence, segment, item)
            if not math.isclose(areas[0][0], pixels * pixel_area(evidence), rel_tol=1e-6, abs_tol=1e-9):
                raise result.refuse("outline", f"the area of segment {segment} is not that of its outline")


def check_regions(result: Result, evidence: Evidence, found: Sequence[Dataset]) -> None:
    """Outlines that stand in groups of their own (TID 1410): one for each segment that was found, in their order, on it."""
    real = list(evidence.slice_of.values())
    there = [n.number for n in evidence.manifest.output.segments if evidence.masks.counts[real, n.number].any()]
    if len(found) != len(there):
        raise result.refuse("outline", "not one outline for each segment that was found")
    for segment, group in zip(there, found, strict=True):
        (index, points), (size, _) = region(result, evidence, group), value_of(numbers(group)[0])
        pixels = _enclosed_of(result, evidence, segment, index, points)
        if not math.isclose(size, pixels * pixel_area(evidence), rel_tol=1e-6):
            raise result.refuse("outline", f"the area of segment {segment} is not that of its outline")


def pixel_area(evidence: Evidence) -> float:
    """In mm2."""
    _, between_rows, between_columns = evidence.volume.spacing
    return between_rows * between_columns


def _pixels_on_segment(result: Result, evidence: Evidence, segment: int, item: Dataset) -> int:
    """How many pixels the outline of a number encloses; 0 for the outline of a whole image where nothing was found."""
    index, points = region(result, evidence, item)
    return _enclosed_of(result, evidence, segment, index, points)


def _enclosed_of(result: Result, evidence: Evidence, segment: int, index: int, points: NDArray[np.float64]) -> int:
    inside = enclosed(points, *evidence.masks.shape[1:])
    slices = list(evidence.slice_of.values())
    if inside.all() and not evidence.masks.counts[slices, segment].any():
        return 0
    filled = ndimage.binary_fill_holes(evidence.masks.on(index, segment))
    if not inside.any() or (inside & ~filled).any():
        raise result.refuse("outline", f"the outline of segment {segment} does not lie on the segment")
    return int(inside.sum())


def region(result: Result, evidence: Evidence, item: Dataset) -> tuple[int, NDArray[np.float64]]:
    """Slice and points (column, row) of the one outline below a number or in a group; raises GateRefused for none or more."""
    places = [place for place in item.get("ContentSequence") or () if str(place.get("ValueType")).startswith("SCOORD")]
    if len(places) != 1:
        raise result.refuse("no_outline", "a number does not stand on exactly one 2D outline")
    return outline(result, evidence, places[0])


def outline(result: Result, evidence: Evidence, place: Dataset) -> tuple[int, NDArray[np.float64]]:
    """Slice and points of an SCOORD item that is closed and lies within one image of the input."""
    if place.get("ValueType") != "SCOORD" or place.get("GraphicType") != "POLYLINE":
        raise result.refuse("no_outline", "a number does not stand on exactly one 2D outline")
    images = [
        evidence.slice_at(target)
        for image in place.get("ContentSequence") or ()
        for target in image.get("ReferencedSOPSequence") or ()
    ]
    if len(images) != 1 or images[0] is None:
        raise result.refuse("no_outline", "an outline does not lie on exactly one image of the input")
    points = np.array(place.get("GraphicData") or (), dtype=np.float64)
    if len(points) < 8 or len(points) % 2 or not np.array_equal(points[:2], points[-2:]):
        raise result.refuse("outline", "an outline is not closed")
    points = points.reshape(-1, 2)
    rows, columns = evidence.masks.shape[1:]
    if points.min() < -_ROUNDED or (points > np.array([columns, rows]) + _ROUNDED).any():
        raise result.refuse("outline", "an outline leaves its image")
    return images[0], points


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
