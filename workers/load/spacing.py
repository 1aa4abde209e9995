"""How slices follow each other along their normal: evenly, with some missing, or unevenly. No I/O; lengths in mm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gateway.domain.errors import InputRefused

SPACING_TOLERANCE = 0.05
"""How far a slice may lie from its place in an evenly spaced stack, as a part of the spacing."""

ROUNDING = 0.01
"""Positions are often rounded to this many mm; no tolerance is finer."""

MOST_INVENTED = 0.25
"""The largest part of a stack that may be interpolated over gaps."""

MOST_UNEVEN = 4.0
"""How often the largest distance of an uneven stack may hold its smallest."""

_NEAR = 0.3  # of the smallest distance: how far an uneven slice may lie from the nearest even one
_HOLE = 1.5  # times the usual distance around it: a slice may be missing there

Depths = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Spacing:
    """Where the slices of a stack lie along its normal."""

    step: float  # mm; of an uneven stack, between the slices of the even one that it is resampled to
    places: NDArray[np.float64]  # of each image, in steps from the first, ascending; whole numbers unless uneven
    uneven: bool = False
    holes: int = 0  # distances of an uneven stack that are much larger than those around them


def spaced(
    depths: Depths, thickness: float, *, gaps: Literal["refuse", "flag"], uneven: Literal["refuse", "resample"]
) -> Spacing:
    """How slices at ascending ``depths`` follow each other; ``thickness`` is that of the only slice where there is but one.

    Raises InputRefused (`duplicate_position`, `uneven`, and `gap` for an uneven stack with holes that must have none).
    """
    if len(depths) == 1:
        if thickness <= 0:
            raise InputRefused("the only image of the series says no Slice Thickness", code="slices")
        return Spacing(step=thickness, places=np.zeros(1))
    steps = np.diff(depths)
    _check_apart(depths, steps)
    even, holes = _even(depths, steps), _holes(steps)
    too_uneven = bool(steps.max() > MOST_UNEVEN * steps.min())
    if even is not None and (uneven == "refuse" or len(holes) or too_uneven or even.places[-1] + 1 == len(depths)):
        return even
    if uneven == "refuse" or too_uneven:
        raise InputRefused(
            f"the slices are unevenly spaced, {steps.min():.2f} to {steps.max():.2f} mm apart", code="uneven"
        )
    if len(holes) and gaps == "refuse":
        raise InputRefused(
            f"slices seem to be missing: after slice {holes[0] + 1} of {len(depths)} it is {steps[holes[0]]:.2f} mm to the "
            "next, much more than around it",
            code="gap",
        )
    step = _common_step(depths, float(steps.min()))
    return Spacing(step=step, places=(depths - depths[0]) / step, uneven=True, holes=len(holes))


def check_gaps(places: Sequence[int], depths: Depths, gaps: Literal["refuse", "flag"]) -> None:
    """Raises InputRefused (`gap`) where slices of an even stack are missing and may not be, or too many are."""
    count = places[-1] + 1
    missing = count - len(places)
    if missing and (gaps == "refuse" or missing > MOST_INVENTED * count):
        after = next(index for index in range(len(places) - 1) if places[index + 1] - places[index] > 1)
        raise InputRefused(
            f"{missing} of {count} slices are missing, the first after slice {places[after] + 1} "
            f"({depths[after + 1] - depths[after]:.2f} mm to the next)",
            code="gap",
        )


def shares(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much of the stack each slice stands for, in steps: half of the way to either neighbour, and outwards as inwards.

    1 for each slice of an even stack.
    """
    if len(places) == 1:
        return np.ones(1)
    steps = np.diff(places)
    ways = np.concatenate([steps[:1], steps, steps[-1:]])
    found: NDArray[np.float64] = (ways[:-1] + ways[1:]) / 2
    return found


def _check_apart(depths: Depths, steps: NDArray[np.float64]) -> None:
    if steps.min() < ROUNDING:
        raise InputRefused(
            f"{int((steps < ROUNDING).sum()) + 1} or more images lie at the same position (first at "
            f"{depths[int(steps.argmin())]:.2f} mm along the normal): the series holds more than one volume",
            code="duplicate_position",
        )


def _even(depths: Depths, steps: NDArray[np.float64]) -> Spacing | None:
    """The stack as an even one of which slices may be missing; None where a slice lies off its place."""
    usual = median_low(steps.tolist())
    places = np.concatenate([[0], np.cumsum(np.maximum(np.rint(steps / usual), 1))])
    step = float((depths[-1] - depths[0]) / places[-1])
    off = np.abs(depths - depths[0] - step * places).max()
    return Spacing(step=step, places=places) if off <= max(SPACING_TOLERANCE * step, ROUNDING) else None


def _common_step(depths: Depths, smallest: float) -> float:
    """The largest step, of the smallest distance at most, that has an even slice near each slice: labels come back from there.

    Half of the smallest distance always has."""
    extent = float(depths[-1] - depths[0])
    least = int(np.ceil(extent / smallest - ROUNDING))
    for count in range(least, 2 * least):
        places = (depths - depths[0]) / extent * count
        if np.abs(places - np.rint(places)).max() * extent / count <= _NEAR * smallest:
            return extent / count
    return extent / (2 * least)


def _holes(steps: NDArray[np.float64]) -> list[int]:
    """Distances that are much larger than those around them. Where the spacing changes for good, three in a row are larger."""
    return [
        index
        for index, step in enumerate(steps.tolist())
        if step > _HOLE * median_low(steps[max(index - 2, 0) : index + 3].tolist())
    ]
