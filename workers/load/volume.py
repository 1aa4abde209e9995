"""What loading gives and everything after it uses: voxels with their place in the patient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from workers.load.geometry import spacing_of


@dataclass(frozen=True, kw_only=True)
class Companion:
    """Another series of the same study, on the grid of the volume it goes with."""

    name: str  # of the input
    voxels: NDArray[
        np.float32
    ]  # (slices, rows, columns) of the volume; 0 where the series does not reach, or is missing
    headers: tuple[Dataset, ...] = ()  # one for each of its instances, without pixel data; none where it is missing
    said: str = ""  # how it came onto the grid, for provenance


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A stack of parallel, evenly spaced slices of one series.

    Index order is (slice, row, column). Slices are ordered along the stack's normal, whatever the order of files.
    """

    voxels: NDArray[np.float32]
    """(slices, rows, columns), rescaled to the modality's units (PS3.3 C.11.1)."""

    affine: NDArray[np.float64]
    """4 x 4; takes (slice, row, column, 1) to the voxel centre in mm in the patient's LPS system (PS3.3 C.7.6.2.1.1)."""

    headers: tuple[Dataset | None, ...]
    """For each slice the source dataset without its pixel data; None where the slice was interpolated over a gap."""

    frames: tuple[int | None, ...] = ()
    """For each slice its frame's number in the multi-frame image it is from, 1..N; empty for single-frame images."""

    flags: tuple[str, ...] = ()
    """What is unusual about the input, each one sentence."""

    companions: tuple[Companion, ...] = ()
    """The other series of a model that takes several, in the order of its inputs."""

    def frame_number(self, index: int) -> int | None:
        """Number of a slice's frame; None where its image has but one."""
        return self.frames[index] if self.frames else None

    @property
    def first(self) -> Dataset:
        """A source dataset to take the patient's and study's attributes from."""
        return next(header for header in self.headers if header is not None)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance in mm between slices (along their normal), rows and columns."""
        between, rows, columns = spacing_of(self.affine)
        return float(between), float(rows), float(columns)
