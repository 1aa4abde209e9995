"""An unevenly spaced stack as models know images: evenly spaced. And which of its slices shows what a slice as it came shows.

The even stack lies between the same end slices, as finely as the smallest distance asks for (`workers.load.spacing`); its values
are linear between the neighbouring slices. A slice as it came gets the labels of the even one nearest to it, which lies within 0.3
of the smallest distance and so shows that slice more than any other.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workers.load.volume import Volume

_THERE = 1e-6  # of a step: an even slice that is one as it came


@dataclass(frozen=True, kw_only=True)
class Evened:
    """The even volume, and for each slice as it came the number of the even one nearest to it."""

    volume: Volume
    nearest: NDArray[np.intp]

    def back(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Values of even slices, (..., even slices, rows, columns), on the slices as they came."""
        return values[..., self.nearest, :, :]


def evened(volume: Volume) -> Evened | None:
    """The volume evenly spaced; None where it is already. Values run from pixel to the same pixel of the next slice: a sheared
    stack is set upright first where a model is to see it (`workers.infer.upright`)."""
    if not volume.places:
        return None
    levels = volume.levels
    count = round(float(levels[-1])) + 1
    below = np.clip(np.searchsorted(levels, np.arange(count), side="right") - 1, 0, len(levels) - 2)
    parts = ((np.arange(count) - levels[below]) / np.diff(levels)[below]).clip(0, 1)

    def between(slices: NDArray[np.float32]) -> NDArray[np.float32]:
        found = np.empty((count, *slices.shape[1:]), np.float32)
        for index, (lower, part) in enumerate(zip(below, parts.astype(np.float32), strict=True)):
            found[index] = (1 - part) * slices[lower] + part * slices[lower + 1]
        return found

    nearest = np.rint(levels).astype(np.intp)
    there = {int(even): index for index, even in enumerate(nearest) if abs(levels[index] - even) < _THERE}
    headers = tuple(volume.headers[there[index]] if index in there else None for index in range(count))
    companions = tuple(dataclasses.replace(each, voxels=between(each.voxels)) for each in volume.companions)
    even = dataclasses.replace(
        volume, voxels=between(volume.voxels), headers=headers, frames=(), places=(), companions=companions,
        outside=None if volume.outside is None else even_mask(volume.outside, volume),
    )  # fmt: skip
    return Evened(volume=even, nearest=nearest)


def even(volume: Volume) -> Volume:
    """The volume evenly spaced."""
    found = evened(volume)
    return volume if found is None else found.volume


def even_mask(mask: NDArray[np.bool_], volume: Volume) -> NDArray[np.bool_]:
    """A mask on an uneven volume's slices, repeated to even ones: each shows what the slice nearest to it shows."""
    if not volume.places:
        return mask
    levels = volume.levels
    middles = (levels[1:] + levels[:-1]) / 2
    return mask[np.searchsorted(middles, np.arange(round(float(levels[-1])) + 1))]
