"""The demonstration head as a scanner could have sent it: axial, coronal, sagittal or oblique, in either direction."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from tests.support.series import write_series
from workers.sample import Head, read_head

Plane = Literal["axial", "coronal", "sagittal", "oblique"]
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal", "oblique")

# Directions in LPS of the next slice, the next row and the next column.
_DIRECTIONS = {
    "axial": ((0, 0, 1), (0, 1, 0), (1, 0, 0)),
    "coronal": ((0, 1, 0), (0, 0, -1), (1, 0, 0)),
    "sagittal": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
}


@cache
def head(plane: Plane = "axial", *, descending: bool = False) -> Head:
    """The head and its reference mask in slices of one plane, in the opposite slice order with ``descending``.

    Axial, coronal and sagittal are the same voxels in another order; oblique is resampled (turned by 20 and 15
    degrees, 2 mm between slices).
    """
    source = read_head()
    turned = _oblique(source) if plane == "oblique" else _reordered(source, np.array(_DIRECTIONS[plane], float).T)
    return _backwards(turned) if descending else turned


def write_head(
    directory: Path,
    plane: Plane = "axial",
    *,
    descending: bool = False,
    missing: Collection[int] = (),
    seed: str = "",
) -> list[Path]:
    """Writes the head as an MR series; file names and instance numbers run along the slices. Returns the files."""
    image = head(plane, descending=descending)
    return write_series(directory, image.voxels, image.affine, missing=missing, shuffle=False, seed=seed)


def _reordered(source: Head, directions: NDArray[np.float64]) -> Head:
    """The same voxels along other axes; ``directions`` has one column for each index."""
    steps = np.linalg.inv(source.affine[:3, :3]) @ directions
    axes = np.abs(steps).argmax(axis=0)
    signs = np.sign(steps[axes, range(3)])
    flips = tuple(slice(None, None, int(sign)) for sign in signs)
    turn = np.eye(4)
    turn[:3, :3] = 0
    for index, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
        turn[axis, index] = sign
        turn[axis, 3] = source.voxels.shape[axis] - 1 if sign < 0 else 0
    return Head(
        voxels=np.ascontiguousarray(source.voxels.transpose(axes)[flips]),
        reference=np.ascontiguousarray(source.reference.transpose(axes)[flips]),
        affine=source.affine @ turn,
    )


def _rotation() -> NDArray[np.float64]:
    tilt, swing = np.deg2rad(20.0), np.deg2rad(15.0)
    about_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    about_z = np.array([[np.cos(swing), -np.sin(swing), 0], [np.sin(swing), np.cos(swing), 0], [0, 0, 1]])
    return about_z @ about_x


def _oblique(source: Head) -> Head:
    shape, spacing = (150, 180, 150), np.array([2.0, 1.5, 1.5])
    affine = np.eye(4)
    affine[:3, :3] = _rotation() @ np.array(_DIRECTIONS["axial"], float).T * spacing
    middle = source.affine @ [*(np.array(source.voxels.shape) - 1) / 2, 1]
    affine[:3, 3] = middle[:3] - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    to_source = np.linalg.inv(source.affine) @ affine
    voxels = affine_transform(source.voxels.astype(np.float32), to_source, output_shape=shape, order=1)
    reference = affine_transform(source.reference.astype(np.float32), to_source, output_shape=shape, order=1)
    return Head(voxels=voxels.round().astype(np.uint16), reference=reference > 0.5, affine=affine)


def _backwards(image: Head) -> Head:
    turn = np.diag([-1.0, 1.0, 1.0, 1.0])
    turn[0, 3] = len(image.voxels) - 1
    return Head(
        voxels=np.ascontiguousarray(image.voxels[::-1]),
        reference=np.ascontiguousarray(image.reference[::-1]),
        affine=image.affine @ turn,
    )
