"""A stack that was sheared by a tilted gantry, or is unevenly spaced, as models know bodies: upright and even. And what they
give, back on the slices.

Slices of a tilted gantry are parallel but drift sideways. Read as a block, the body in it is slanted. So every slice is moved in
its own plane (linear interpolation), into a block that is wide enough; labels move back by the same distances. Uneven slices are
then resampled to even ones (`workers.load.uneven`); each gets the labels of the even one nearest to it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from workers.load.uneven import Evened, evened
from workers.load.volume import Volume

_STRAIGHT = 1e-3  # pixels over the whole stack


@dataclass(frozen=True, kw_only=True)
class Upright:
    """The volume for a model, and how its values come back to the slices as they came."""

    volume: Volume
    offsets: NDArray[np.float64] | None = (
        None  # (slices, 2): rows and columns, how far each slice was moved; None: not at all
    )
    shape: tuple[int, int] = (0, 0)  # of the slices as they came
    even: Evened | None = None  # where they were resampled

    def back(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Values of the model's voxels, (..., slices, rows, columns), on the slices as they came: nearest voxel."""
        values = values if self.even is None else self.even.back(values)
        if self.offsets is None:
            return values
        rows, columns = self.shape
        result = np.empty((*values.shape[:-2], rows, columns), values.dtype)
        for index, (down, right) in enumerate(self.offsets.round().astype(int)):
            result[..., index, :, :] = values[..., index, down : down + rows, right : right + columns]
        return result


def straighten(volume: Volume) -> Upright | None:
    """The volume upright and evenly spaced; None where it is both already."""
    offsets = np.outer(volume.levels, _shear(volume.affine))
    straight = np.abs(offsets).max() < _STRAIGHT
    if straight and not volume.places:
        return None
    offsets -= offsets.min(axis=0)
    moved = volume if straight else _unsheared(volume, offsets)
    even = evened(moved)
    return Upright(
        volume=moved if even is None else even.volume,
        offsets=None if straight else offsets,
        shape=(volume.voxels.shape[1], volume.voxels.shape[2]),
        even=even,
    )


def _unsheared(volume: Volume, offsets: NDArray[np.float64]) -> Volume:
    count, rows, columns = volume.voxels.shape
    down, right = np.ceil(offsets.max(axis=0)).astype(int) + 1

    def moved(slices: NDArray[np.float32]) -> NDArray[np.float32]:
        voxels = np.full((count, rows + down, columns + right), slices.min(), np.float32)
        voxels[:, :rows, :columns] = slices
        for plane, offset in zip(voxels, offsets, strict=True):
            plane[:] = ndimage.shift(plane, offset, order=1, mode="nearest")
        return voxels

    affine, shear = volume.affine.copy(), _shear(volume.affine)
    corner = np.minimum(volume.levels[-1] * shear, 0)
    affine[:3, 3] += volume.affine[:3, 1:3] @ corner
    affine[:3, 0] -= volume.affine[:3, 1:3] @ shear
    companions = tuple(dataclasses.replace(each, voxels=moved(each.voxels)) for each in volume.companions)
    upright = moved(volume.voxels)
    return dataclasses.replace(volume, voxels=upright, affine=affine, companions=companions, outside=None)


def _shear(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far a slice is shifted for each step of the affine, in rows and columns."""
    slices, rows, columns = affine[:3, :3].T
    normal = np.cross(columns, rows)
    basis = np.stack([normal / np.linalg.norm(normal), rows, columns], axis=1)
    shear: NDArray[np.float64] = np.linalg.solve(basis, slices)[1:]
    return shear
