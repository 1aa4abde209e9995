"""Where slices lie: from the planes of single images to one evenly spaced stack. No I/O.

Lengths are mm in the patient's LPS system (PS3.3 C.7.6.2.1.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gateway.domain.errors import InputRefused
from gateway.manifest_input import Geometry

COSINE_TOLERANCE = 1e-3
"""How far direction cosines may be from unit length, right angles, and each other: decimal strings are rounded."""

SPACING_TOLERANCE = 0.05
"""How far a slice may lie from its place in an evenly spaced stack, as a part of the spacing."""

SHIFT_TOLERANCE = 0.1
"""How far a slice may be shifted in its own plane against the stack, as a part of a pixel."""

ROUNDING = 0.01
"""Positions are often rounded to this many mm; no tolerance is finer."""

MOST_TILT = 40.0
"""The largest tilt of a gantry, in degrees; scanners reach 30."""

MOST_INVENTED = 0.25
"""The largest part of a stack that may be interpolated over gaps."""


@dataclass(frozen=True, kw_only=True)
class Plane:
    """The plane of one image."""

    position: tuple[float, float, float]  # Image Position (Patient), centre of the first pixel
    orientation: tuple[float, ...]  # Image Orientation (Patient): along a row, then along a column
    spacing: tuple[float, float]  # Pixel Spacing: between rows, between columns
    shape: tuple[int, int]  # rows, columns
    thickness: float = 0.0  # Slice Thickness; only used where there is one slice


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Parallel, evenly spaced slices, in order along the normal (the cross product of row and column direction).

    Sheared where a gantry was tilted: the line through the slices' first pixels need not be their normal."""

    order: tuple[int | None, ...]  # for each slice, which plane lies there; None where it is missing
    affine: NDArray[np.float64]  # 4 x 4, (slice, row, column, 1) to LPS mm
    tilt: float = 0.0  # degrees between the line through the slices and their normal: of a gantry

    @property
    def missing(self) -> int:
        """How many slices are missing between the first and the last."""
        return self.order.count(None)


def stack(planes: Sequence[Plane], *, gaps: Literal["refuse", "flag"]) -> Stack:
    """Orders planes into a stack.

    Raises InputRefused (codes `orientation`, `size`, `duplicate_position`, `sheared`, `uneven`, `gap`) where they are not one
    stack, or where slices are missing and ``gaps`` says `refuse`.
    """
    along_row, along_column = _directions(planes)
    normal = np.cross(along_row, along_column)
    positions = np.array([plane.position for plane in planes])
    depths = positions @ normal
    order = np.argsort(depths, kind="stable")
    between, slots = _slots(depths[order], planes[0].thickness)
    drift = _drift(positions[order], slots, normal, planes[0])
    if slots[-1] + 1 != len(planes):
        _check_gaps(slots, depths[order], "refuse" if drift.any() else gaps)  # nothing is interpolated sideways
    placed: list[int | None] = [None] * (slots[-1] + 1)
    for slot, index in zip(slots, order, strict=True):
        placed[slot] = int(index)
    affine = np.eye(4)
    rows, columns = planes[0].spacing
    affine[:3, 0] = normal * between + drift
    affine[:3, 1], affine[:3, 2] = along_column * rows, along_row * columns
    affine[:3, 3] = positions[order[0]]
    tilt = float(np.degrees(np.arctan2(np.linalg.norm(drift), between)))
    return Stack(order=tuple(placed), affine=affine, tilt=tilt)


def check_limits(stack: Stack, shape: tuple[int, int], limits: Geometry) -> None:
    """Raises InputRefused (codes `slices`, `spacing`, `extent`) where a stack is outside what a model was made for."""
    count = len(stack.order)
    if not limits.slices.min <= count <= limits.slices.max:
        raise InputRefused(
            f"the series has {count} slices, the model takes {limits.slices.min} to {limits.slices.max}", code="slices"
        )
    spacing = spacing_of(stack.affine)
    for what, length, number in zip(("slices", "rows", "columns"), spacing, (count, *shape), strict=True):
        if not limits.spacing.holds(float(length)):
            raise InputRefused(
                f"{what} are {length:.3g} mm apart, the model takes {limits.spacing.min:g} to {limits.spacing.max:g} mm",
                code="spacing",
            )
        if not limits.extent.holds(float(length * number)):
            raise InputRefused(
                f"the volume is {length * number:.4g} mm wide across {what}, "
                f"the model takes {limits.extent.min:g} to {limits.extent.max:g} mm",
                code="extent",
            )


def _directions(planes: Sequence[Plane]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The common unit vectors along a row and along a column."""
    first = planes[0]
    for plane in planes:
        if plane.shape != first.shape or not np.allclose(plane.spacing, first.spacing, rtol=1e-3, atol=0):
            raise InputRefused("the images of the series differ in rows, columns or pixel spacing", code="size")
        if not np.allclose(plane.orientation, first.orientation, rtol=0, atol=COSINE_TOLERANCE):
            raise InputRefused("the images of the series have more than one orientation", code="orientation")
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column)])
    if np.abs(lengths - 1).max() > COSINE_TOLERANCE or abs(row @ column) > COSINE_TOLERANCE:
        raise InputRefused("Image Orientation (Patient) is not two perpendicular unit vectors", code="orientation")
    return row / lengths[0], column / lengths[1]


def _slots(depths: NDArray[np.float64], thickness: float) -> tuple[float, list[int]]:
    """Spacing between slices, and for each slice its number in a stack without gaps; ``depths`` ascend."""
    if len(depths) == 1:
        if thickness <= 0:
            raise InputRefused("the only image of the series says no Slice Thickness", code="slices")
        return thickness, [0]
    steps = np.diff(depths)
    if steps.min() < ROUNDING:
        raise InputRefused(
            f"{int((steps < ROUNDING).sum()) + 1} or more images lie at the same position (first at "
            f"{depths[int(steps.argmin())]:.2f} mm along the normal): the series holds more than one volume",
            code="duplicate_position",
        )
    usual = median_low(steps.tolist())
    slots = [0, *np.cumsum(np.maximum(np.rint(steps / usual), 1)).astype(int).tolist()]
    between = float((depths[-1] - depths[0]) / slots[-1])
    off = np.abs(depths - depths[0] - between * np.array(slots)).max()
    if off > max(SPACING_TOLERANCE * between, ROUNDING):
        raise InputRefused(
            f"the slices are unevenly spaced, {steps.min():.2f} to {steps.max():.2f} mm apart", code="uneven"
        )
    return between, slots


def _drift(
    positions: NDArray[np.float64], slots: Sequence[int], normal: NDArray[np.float64], plane: Plane
) -> NDArray[np.float64]:
    """How far each slice lies sideways of the one before, in mm: zero in an upright stack, the same all along where a gantry
    was tilted. Raises InputRefused (`sheared`) for every other drift."""
    offsets = positions - positions[0]
    sideways = offsets - np.outer(offsets @ normal, normal)
    allowed = max(SHIFT_TOLERANCE * min(plane.spacing), ROUNDING)
    if np.linalg.norm(sideways, axis=1).max() <= allowed:
        return np.zeros(3)
    steps = np.array(slots, float)
    drift: NDArray[np.float64] = steps @ sideways / (steps @ steps)
    rest = np.linalg.norm(sideways - np.outer(steps, drift), axis=1).max()
    angle = np.degrees(np.arctan2(np.linalg.norm(drift) * steps[-1], offsets[-1] @ normal))
    if rest > allowed or angle > MOST_TILT:
        raise InputRefused(
            f"the slices are shifted against each other by up to {np.linalg.norm(sideways, axis=1).max():.2f} mm, "
            + (f"{angle:.0f} degrees" if rest <= allowed else f"not evenly (by {rest:.2f} mm)")
            + ", so they form no stack, not even that of a tilted gantry",
            code="sheared",
        )
    return drift


def spacing_of(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance in mm between slices (along their normal, also where a gantry was tilted), rows and columns."""
    slices, rows, columns = affine[:3, :3].T
    normal = np.cross(columns, rows)
    between = abs(float(slices @ normal)) / np.linalg.norm(normal)
    return np.array([between, np.linalg.norm(rows), np.linalg.norm(columns)])


def _check_gaps(slots: Sequence[int], depths: NDArray[np.float64], gaps: Literal["refuse", "flag"]) -> None:
    count = slots[-1] + 1
    missing = count - len(slots)
    after = next(index for index in range(len(slots) - 1) if slots[index + 1] - slots[index] > 1)
    if gaps == "refuse" or missing > MOST_INVENTED * count:
        raise InputRefused(
            f"{missing} of {count} slices are missing, the first after slice {slots[after] + 1} "
            f"({depths[after + 1] - depths[after]:.2f} mm to the next)",
            code="gap",
        )
