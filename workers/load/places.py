"""Where something was found: a block in the patient, or a connected part of a mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.domain.messages import FindingResult

Vectors = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Box:
    """What a detection puts around something. Its edges run as the model's own axes do, not as those of the images."""

    corner: Vectors  # (3,), LPS mm
    edges: Vectors  # (3, 3), each row the way to a neighbouring corner, mm
    label: int  # which class, from 0
    score: float  # 0 to 1
    slice: int | None = None  # the slice it was found on, where the model saw one at a time

    @property
    def centre(self) -> Vectors:
        """(3,), LPS mm."""
        middle: Vectors = self.corner + self.edges.sum(axis=0) / 2
        return middle

    @property
    def corners(self) -> Vectors:
        """(8, 3), LPS mm, in the order of three binary digits."""
        found: Vectors = self.corner + np.array(list(np.ndindex(2, 2, 2)), float) @ self.edges
        return found


@dataclass(frozen=True, kw_only=True)
class Part:
    """A connected part of a segment, cut out of the volume."""

    start: tuple[int, int, int]  # slice, row, column of its first voxel
    mask: NDArray[np.bool_]

    @property
    def place(self) -> tuple[slice, slice, slice]:
        """Where it lies in the volume."""
        first, second, third = (slice(at, at + size) for at, size in zip(self.start, self.mask.shape, strict=True))
        return first, second, third

    def on(self, index: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """(rows, columns) of it on one slice of the volume."""
        plane = np.zeros(shape, bool)
        if 0 <= index - self.start[0] < len(self.mask):
            plane[self.place[1:]] = self.mask[index - self.start[0]]
        return plane


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was found, and where. It has either a box or a part."""

    told: FindingResult
    slice: int  # the image that shows it best; never an interpolated one
    box: Box | None = None
    part: Part | None = None
