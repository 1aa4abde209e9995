"""What loading gives and everything after it uses: voxels with their place in the patient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from workers.load.geometry import spacing_of
from workers.load.spacing import shares


@dataclass(frozen=True, kw_only=True)
class Companion:
    """Another series, of the same study or of a prior, on the grid of the volume it goes with."""

    name: str  # of the input
    voxels: NDArray[
        np.float32
    ]  # (slices, rows, columns) of the volume; 0 where the series does not reach, or is missing
    headers: tuple[Dataset, ...] = ()  # one for each of its instances, without pixel data; none where it is missing
    said: str = ""  # how it came onto the grid, for provenance
    prior: bool = False  # of an earlier study of the patient


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A stack of parallel slices of one series.

    Index order is (slice, row, column). Slices are ordered along the stack's normal, whatever the order of files.
    """

    voxels: NDArray[np.float32]
    """(slices, rows, columns), rescaled to the modality's units (PS3.3 C.11.1)."""

    affine: NDArray[np.float64]
    """4 x 4; takes (slice, row, column, 1) to the voxel centre in mm in the patient's LPS system (PS3.3 C.7.6.2.1.1).

    Of an uneven stack, `places` stand for the slices' numbers: what lies at slice k lies at ``levels[k]``."""

    headers: tuple[Dataset | None, ...]
    """For each slice the source dataset without its pixel data; None where the slice was interpolated over a gap."""

    frames: tuple[int | None, ...] = ()
    """For each slice its frame's number in the multi-frame image it is from, 1..N; empty for single-frame images."""

    places: tuple[float, ...] = ()
    """Of an unevenly spaced stack: where each slice lies along the affine's first axis, ascending from 0; empty of an even one."""

    outside: NDArray[np.bool_] | None = None
    """(slices, rows, columns): which voxels lie outside of the field of view, as the images' padding says; None where none does."""

    flags: tuple[str, ...] = ()
    """What is unusual about the input, each one sentence."""

    companions: tuple[Companion, ...] = ()
    """The other series of a model that takes several, in the order of its inputs."""

    def frame_number(self, index: int) -> int | None:
        """Number of a slice's frame; None where its image has but one."""
        return self.frames[index] if self.frames else None

    @property
    def levels(self) -> NDArray[np.float64]:
        """(slices,): where each slice lies along the affine's first axis; 0, 1, 2, ... of an even stack."""
        return np.array(self.places) if self.places else np.arange(len(self.voxels), dtype=np.float64)

    @property
    def voxel_volumes(self) -> NDArray[np.float64]:
        """(slices,): mm3 of one voxel of each slice, which reaches half of the way to its neighbours.

        By the determinant of the affine, not the product of spacings from the header: Slice Thickness is not the distance
        between slices, and a sheared stack (gantry tilt) has less volume than its edges suggest."""
        found: NDArray[np.float64] = shares(self.levels) * float(abs(np.linalg.det(self.affine[:3, :3])))
        return found

    @property
    def first(self) -> Dataset:
        """A source dataset to take the patient's and study's attributes from."""
        return next(header for header in self.headers if header is not None)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance in mm between slices (along their normal; of an uneven stack the step of the affine), rows and columns."""
        between, rows, columns = spacing_of(self.affine)
        return float(between), float(rows), float(columns)
