"""Labels on a grid of the model's own, back on the grid of the images: by geometry, never by array order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gateway.domain.errors import ModelOutputInvalid
from workers.load.volume import Volume

_SAME = 0.05  # of a voxel


def same_grid(affine: NDArray[np.float64], other: NDArray[np.float64], shape: tuple[int, ...]) -> bool:
    """Whether both put all corners of a block into the same places, to a twentieth of a voxel."""
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)], float) * [*(np.array(shape) - 1), 1]
    apart = np.linalg.norm(((affine - other) @ corners.T)[:3], axis=0).max()
    return bool(apart <= _SAME * np.linalg.norm(other[:3, :3], axis=0).min())


def regrid(
    values: NDArray[np.generic],
    affine: NDArray[np.float64],
    target: NDArray[np.float64],
    shape: tuple[int, ...],
    order: int = 0,
) -> NDArray[np.generic]:
    """Values (channels, i, j, k) of a grid on another of ``shape``: the nearest value (``order`` 1: linear); 0 outside.

    Both affines go from index to the same millimetres. Raises ModelOutputInvalid (`output_grid`) where the grids do not meet:
    labels that lie elsewhere are no labels of these images.
    """
    try:
        to_source = np.linalg.inv(affine) @ target
    except np.linalg.LinAlgError:
        raise ModelOutputInvalid("the model's labels lie on no grid in space", code="output_grid") from None
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)], float) * [*(np.array(shape) - 1), 1]
    reached = (to_source @ corners.T)[:3]
    limits = np.array(values.shape[1:])[:, None] - 0.5
    if (
        not np.isfinite(reached).all()
        or (reached.max(axis=1, keepdims=True) < -0.5).any()
        or (reached.min(axis=1, keepdims=True) > limits).any()
    ):
        raise ModelOutputInvalid("the model's labels lie outside of the images", code="output_grid")
    return np.stack(
        [
            ndimage.affine_transform(
                channel,
                to_source[:3, :3],
                to_source[:3, 3],
                output_shape=shape,
                order=order,
                mode="grid-constant",
                cval=0,
            )
            for channel in values
        ]
    )


def onto(
    values: NDArray[np.generic], own: Volume, target: Volume, motion: NDArray[np.float64], order: int
) -> NDArray[np.generic]:
    """Values (channels, slices, rows, columns) on the slices of one series on those of another, even or not; 0 outside.

    ``motion`` goes from the target's millimetres to those of ``own``; ``order`` 0 is the nearest voxel, 1 linear.
    """
    to_own = np.linalg.inv(own.affine) @ motion @ target.affine
    rows, columns = np.indices(target.voxels.shape[1:]).reshape(2, -1)
    found = np.zeros((len(values), *target.voxels.shape), values.dtype)
    for number, level in enumerate(target.levels):
        at = (to_own @ np.stack([np.full(rows.shape, level), rows, columns, np.ones(rows.shape)]))[:3]
        at[0] = _slice_numbers(at[0], own.levels)
        for channel, plane in zip(values, found[:, number], strict=True):
            plane.reshape(-1)[:] = ndimage.map_coordinates(channel, at, order=order, mode="grid-constant", cval=0)
    return found


def _slice_numbers(levels: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where along the stack, in slices, levels of the affine lie; before the first and after the last one in its last steps."""
    if len(places) == 1:
        return np.asarray(levels - places[0])
    inside = np.interp(levels, places, np.arange(len(places)))
    before, after = levels - places[0], levels - places[-1]
    inside = np.where(before < 0, before / (places[1] - places[0]), inside)
    found: NDArray[np.float64] = np.where(after > 0, len(places) - 1 + after / (places[-1] - places[-2]), inside)
    return found
