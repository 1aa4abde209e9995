"""Where slices lie: from the planes of single images to one stack. No I/O.

Lengths are mm in the patient's LPS system (PS3.3 C.7.6.2.1.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gateway.bundle.input import Geometry
from gateway.domain.errors import InputRefused
from workers.load.spacing import ROUNDING, check_gaps, shares, spaced

COSINE_TOLERANCE = 1e-3
"""How far direction cosines may be from unit length, right angles, and each other: decimal strings are rounded."""

SHIFT_TOLERANCE = 0.1
"""How far a slice may be shifted in its own plane against the stack, as a part of a pixel."""

MOST_TILT = 40.0
"""The largest tilt of a gantry, in degrees; scanners reach 30."""


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
    """Parallel slices, in order along the normal (the cross product of row and column direction).

    Sheared where a gantry was tilted: the line through the slices' first pixels need not be their normal."""

    order: tuple[int | None, ...]  # for each slice, which plane lies there; None where it is missing
    affine: NDArray[np.float64]  # 4 x 4, (slice, row, column, 1) to LPS mm
    tilt: float = 0.0  # degrees between the line through the slices and their normal: of a gantry
    places: tuple[float, ...] = ()  # of an uneven stack: where each slice lies, in steps of the affine's first axis
    holes: int = 0  # of an uneven stack: distances that are much larger than those around them

    @property
    def missing(self) -> int:
        """How many slices are missing between the first and the last."""
        return self.order.count(None)

    @property
    def levels(self) -> NDArray[np.float64]:
        """(slices,): where each slice lies along the first axis of the affine."""
        return np.array(self.places) if self.places else np.arange(len(self.order), dtype=np.float64)


def stack(
    planes: Sequence[Plane],
    *,
    gaps: Literal["refuse", "flag"],
    uneven: Literal["refuse", "resample"] = "resample",
) -> Stack:
    """Orders planes into a stack.

    Raises InputRefused (codes `orientation`, `size`, `duplicate_position`, `sheared`, `uneven`, `gap`) where they are not one
    stack, or where slices are missing or unevenly spaced and ``gaps`` or ``uneven`` say `refuse`.
    """
    along_row, along_column = _directions(planes)
    normal = np.cross(along_row, along_column)
    positions = np.array([plane.position for plane in planes])
    depths = positions @ normal
    order = np.argsort(depths, kind="stable")
    found = spaced(depths[order], planes[0].thickness, gaps=gaps, uneven=uneven)
    drift = _drift(positions[order], found.places, normal, planes[0])
    affine = np.eye(4)
    rows, columns = planes[0].spacing
    affine[:3, 0] = normal * found.step + drift
    affine[:3, 1], affine[:3, 2] = along_column * rows, along_row * columns
    affine[:3, 3] = positions[order[0]]
    tilt = float(np.degrees(np.arctan2(np.linalg.norm(drift), found.step)))
    if found.uneven:
        places = tuple(found.places.tolist())
        return Stack(order=tuple(order.tolist()), affine=affine, tilt=tilt, places=places, holes=found.holes)
    slots = found.places.astype(int).tolist()
    check_gaps(slots, depths[order], "refuse" if drift.any() else gaps)  # nothing is interpolated sideways
    placed: list[int | None] = [None] * (slots[-1] + 1)
    for slot, index in zip(slots, order, strict=True):
        placed[slot] = int(index)
    return Stack(order=tuple(placed), affine=affine, tilt=tilt)


def check_limits(stack: Stack, shape: tuple[int, int], limits: Geometry) -> None:
    """Raises InputRefused (codes `slices`, `spacing`, `extent`) where a stack is outside what a model was made for.

    Of an uneven stack both the smallest and the largest distance have to be within."""
    count = len(stack.order)
    if not limits.slices.min <= count <= limits.slices.max:
        raise InputRefused(
            f"the series has {count} slices, the model takes {limits.slices.min} to {limits.slices.max}", code="slices"
        )
    between, rows, columns = spacing_of(stack.affine).tolist()
    farthest = between * float(np.diff(stack.levels).max(initial=1.0))
    for what, lengths, extent in (
        ("slices", {between, farthest}, between * float(shares(stack.levels).sum())),
        ("rows", {rows}, rows * shape[0]),
        ("columns", {columns}, columns * shape[1]),
    ):
        for length in sorted(lengths):
            if not limits.spacing.holds(length):
                raise InputRefused(
                    f"{what} are {length:.3g} mm apart, "
                    f"the model takes {limits.spacing.min:g} to {limits.spacing.max:g} mm",
                    code="spacing",
                )
        if not limits.extent.holds(extent):
            raise InputRefused(
                f"the volume is {extent:.4g} mm wide across {what}, "
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


def _drift(
    positions: NDArray[np.float64], steps: NDArray[np.float64], normal: NDArray[np.float64], plane: Plane
) -> NDArray[np.float64]:
    """How far slices lie sideways of each other for each of ``steps``, in mm: zero in an upright stack, the same all along where
    a gantry was tilted. Raises InputRefused (`sheared`) for every other drift."""
    offsets = positions - positions[0]
    sideways = offsets - np.outer(offsets @ normal, normal)
    allowed = max(SHIFT_TOLERANCE * min(plane.spacing), ROUNDING)
    if np.linalg.norm(sideways, axis=1).max() <= allowed:
        return np.zeros(3)
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
