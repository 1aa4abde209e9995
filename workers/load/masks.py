"""Which voxels belong to which segment, whether segments may overlap or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.uint8]
"""Either (slices, rows, columns) with numbers, 0 for background: a voxel belongs to one segment at most. Or (segments,
slices, rows, columns) with 0 and 1, for segments that may overlap."""


@dataclass(frozen=True)
class Masks:
    """The one way to ask labels of either form."""

    labels: Labels

    @property
    def shape(self) -> tuple[int, ...]:
        """Slices, rows, columns."""
        return self.labels.shape[-3:]

    @property
    def stacked(self) -> bool:
        """Whether there is a mask for each segment, so that they may overlap."""
        return self.labels.ndim == 4

    def of(self, segment: int) -> NDArray[np.bool_]:
        """(slices, rows, columns) of one segment."""
        found: NDArray[np.bool_] = self.labels[segment - 1] != 0 if self.stacked else self.labels == segment
        return found

    def on(self, index: int, segment: int) -> NDArray[np.bool_]:
        """(rows, columns) of one segment on one slice."""
        found: NDArray[np.bool_] = (
            self.labels[segment - 1, index] != 0 if self.stacked else self.labels[index] == segment
        )
        return found

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Voxels of each segment on each slice, (slices, 256): column 0 is the background, or nothing."""
        found = np.zeros((self.shape[0], 256), np.int64)
        if self.stacked:
            found[:, 1 : len(self.labels) + 1] = np.count_nonzero(self.labels, axis=(2, 3)).T
            return found
        for index, plane in enumerate(self.labels):
            found[index] = np.bincount(plane.reshape(-1), minlength=256)
        return found

    @property
    def largest(self) -> int:
        """The highest number of a segment that the labels could hold."""
        if self.stacked:
            return len(self.labels)
        return int(self.labels.max(initial=0))

    def present(self, index: int) -> Iterator[int]:
        """Numbers of the segments on a slice, ascending."""
        return (int(number) for number in np.flatnonzero(self.counts[index, 1:]) + 1)

    def total(self, segment: int) -> int:
        """Voxels of a segment."""
        return int(self.counts[:, segment].sum())

    def dice(self, other: Masks, segment: int) -> float:
        """2 |A and B| / (|A| + |B|) of one segment (Dice 1945); 1 where neither has it."""
        total = self.total(segment) + other.total(segment)
        return 2 * int(np.count_nonzero(self.of(segment) & other.of(segment))) / total if total else 1.0

    @cached_property
    def overlap(self) -> bool:
        """Whether any voxel belongs to two segments."""
        if not self.stacked:
            return False
        return any((self.labels[:, index] != 0).sum(axis=0).max(initial=0) > 1 for index in range(self.shape[0]))
