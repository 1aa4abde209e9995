"""Labels of one series on the slices of another, by where each voxel lies."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.series import axial
from workers.infer.regrid import onto
from workers.load.volume import Volume


def volume(shape: tuple[int, int, int], spacing: float, first: float, places: tuple[float, ...] = ()) -> Volume:
    """Axial slices; ``first`` is where the first one lies, in mm from feet to head; rows and columns are 1 mm."""
    affine = axial(shape, (spacing, 1.0, 1.0))
    affine[2, 3] = first
    return Volume(voxels=np.zeros(shape, np.float32), affine=affine, headers=(None,) * shape[0], places=places)


def levels(own: Volume, target: Volume, order: int, motion: float = 0.0) -> list[float]:
    """What slices of ``own`` that say their own height in mm become on those of ``target``."""
    heights = own.affine[2, 3] + own.levels * own.affine[2, 0]
    values = np.broadcast_to(heights[:, None, None], own.voxels.shape)[None].astype(np.float32)
    move = np.eye(4)
    move[2, 3] = motion
    found = onto(values, own, target, move, order)
    assert found.shape == (1, *target.voxels.shape)
    assert (found[0] == found[0, :, :1, :1]).all()
    return [round(float(one), 4) for one in found[0, :, 0, 0]]


EVEN = volume((4, 3, 3), 2.0, 10.0)  # 10, 12, 14, 16
UNEVEN = volume((4, 3, 3), 1.0, 10.0, (0.0, 1.0, 4.0, 6.0))  # 10, 11, 14, 16


def test_even_slices() -> None:
    """The nearest, or between two; what lies further outside than half a slice has nothing."""
    target = volume((5, 3, 3), 1.5, 9.2)  # 9.2, 10.7, 12.2, 13.7, 15.2
    assert levels(EVEN, target, 0) == [10, 10, 12, 14, 16]
    assert levels(EVEN, target, 1)[1:] == pytest.approx([10.7, 12.2, 13.7, 15.2])
    assert levels(EVEN, volume((2, 3, 3), 1.0, 30.0), 0) == [0, 0]
    assert levels(EVEN, target, 0, motion=2.0) == [12, 12, 14, 16, 0], "17.2 lies above them"


def test_uneven_slices() -> None:
    """Of either series: by their places, never by their numbers."""
    target = volume((4, 3, 3), 2.0, 10.4)  # 10.4, 12.4, 14.4, 16.4
    assert levels(UNEVEN, target, 0) == [10, 11, 14, 16]
    assert levels(UNEVEN, target, 1)[:3] == pytest.approx([10.4, 12.4, 14.4])
    assert levels(EVEN, UNEVEN, 1) == pytest.approx([10, 11, 14, 16])
    assert levels(UNEVEN, UNEVEN, 0) == [10, 11, 14, 16]
