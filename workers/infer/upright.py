"""A stack that was sheared by a tilted gantry, as models know bodies: upright. And what they give, back on the slices.

Slices of such a stack are parallel but drift sideways. Read as a block, the body in it is slanted. So every slice is moved in
its own plane (linear interpolation), into a block that is wide enough; labels move back by the same distances.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from workers.load.volume import Volume

_STRAIGHT = 1e-3  # pixels over the whole stack


@dataclass(frozen=True, kw_only=True)
class Upright:
    """The upright volume, and how far each slice was moved in it."""

    volume: Volume
    offsets: NDArray[np.float64]  # (slices, 2): rows and columns, from the corner of the upright slice
    shape: tuple[int, int]  # of the slices as they came

    def back(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Values of upright voxels, (..., slices, rows, columns), on the slices as they came: nearest voxel."""
        rows, columns = self.shape
        result = np.empty((*values.shape[:-2], rows, columns), values.dtype)
        for index, (down, right) in enumerate(self.offsets.round().astype(int)):
            result[..., index, :, :] = values[..., index, down : down + rows, right : right + columns]
        return result


def straighten(volume: Volume) -> Upright | None:
    """The volume upright; None where it is already."""
    shear = _shear(volume.affine)
    count, *shape = volume.voxels.shape
    if np.abs(shear * count).max() < _STRAIGHT:
        return None
    offsets = np.outer(np.arange(count), shear)
    corner = offsets.min(axis=0)
    offsets -= corner
    room = np.ceil(offsets.max(axis=0)).astype(int) + 1

    def moved(slices: NDArray[np.float32]) -> NDArray[np.float32]:
        voxels = np.full((count, shape[0] + room[0], shape[1] + room[1]), slices.min(), np.float32)
        voxels[:, : shape[0], : shape[1]] = slices
        for plane, offset in zip(voxels, offsets, strict=True):
            plane[:] = ndimage.shift(plane, offset, order=1, mode="nearest")
        return voxels

    affine = volume.affine.copy()
    affine[:3, 3] += volume.affine[:3, 1:3] @ corner
    affine[:3, 0] -= volume.affine[:3, 1:3] @ shear
    companions = tuple(dataclasses.replace(each, voxels=moved(each.voxels)) for each in volume.companions)
    upright = dataclasses.replace(volume, voxels=moved(volume.voxels), affine=affine, companions=companions)
    return Upright(volume=upright, offsets=offsets, shape=(shape[0], shape[1]))


def _shear(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far a slice is shifted against the one before, in rows and columns."""
    slices, rows, columns = affine[:3, :3].T
    normal = np.cross(columns, rows)
    basis = np.stack([normal / np.linalg.norm(normal), rows, columns], axis=1)
    shear: NDArray[np.float64] = np.linalg.solve(basis, slices)[1:]
    return shear
