"""The stacking of slices, for every orientation, spacing and order."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from gateway.domain.errors import InputRefused
from workers.load.geometry import SHIFT_TOLERANCE, Plane, Stack, stack

angles = st.floats(-math.pi, math.pi)
lengths = st.floats(0.3, 8.0)
origins = st.tuples(*[st.floats(-500.0, 500.0)] * 3)


@st.composite
def grids(draw: st.DrawFn) -> tuple[NDArray[np.float64], int]:
    """An affine of any right-angled grid whose slices ascend along their normal, and how many slices it has."""
    turned = Rotation.from_euler("xyz", [draw(angles), draw(angles), draw(angles)]).as_matrix()
    row, column = turned[:, 0], turned[:, 1]
    affine = np.eye(4)
    directions = np.stack([np.cross(row, column), column, row], axis=1)
    affine[:3, :3] = directions * [draw(lengths), draw(lengths), draw(lengths)]
    affine[:3, 3] = draw(origins)
    return affine, draw(st.integers(3, 30))


def planes_of(affine: NDArray[np.float64], count: int) -> list[Plane]:
    """The planes a scanner would write, rounded as decimal strings are."""
    _, rows, columns = np.linalg.norm(affine[:3, :3], axis=0)
    orientation = tuple(round(float(v), 6) for v in (*(affine[:3, 2] / columns), *(affine[:3, 1] / rows)))
    planes = []
    for index in range(count):
        x, y, z = (round(float(v), 4) for v in affine[:3, 3] + index * affine[:3, 0])
        planes.append(
            Plane(position=(x, y, z), orientation=orientation, spacing=(float(rows), float(columns)), shape=(4, 5))
        )
    return planes


def agrees(found: Stack, affine: NDArray[np.float64], count: int, within: float = 0.1) -> bool:
    """Whether the corners of the volume are in the same place, to a tenth of a millimetre, or within so many."""
    corners = np.array([[k, r, c, 1] for k in (0, count - 1) for r in (0, 3) for c in (0, 4)]).T
    return bool(np.abs((found.affine @ corners - affine @ corners)[:3]).max() < within)


@given(grids(), st.randoms(use_true_random=False))
def test_any_order_gives_the_same_stack(grid: tuple[NDArray[np.float64], int], random: object) -> None:
    """Whatever the order of the files, each slice is where its position says, and the affine is the scanner's."""
    affine, count = grid
    planes = planes_of(affine, count)
    shuffled = list(range(count))
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    found = stack([planes[index] for index in shuffled], gaps="refuse")
    assert [shuffled[index] for index in found.order if index is not None] == list(range(count))
    assert agrees(found, affine, count)


@given(grids(), st.data())
def test_a_missing_slice_is_named_or_bridged(grid: tuple[NDArray[np.float64], int], data: st.DataObject) -> None:
    """A slice missing inside is refused as a gap, or leaves its place empty where the manifest allows it."""
    affine, count = grid
    assume(count >= 6)
    gone = data.draw(st.integers(1, count - 2))
    planes = [plane for index, plane in enumerate(planes_of(affine, count)) if index != gone]
    with pytest.raises(InputRefused) as refusal:
        stack(planes, gaps="refuse")
    assert refusal.value.code == "gap"
    found = stack(planes, gaps="flag")
    assert found.order.index(None) == gone
    assert len(found.order) == count
    assert agrees(found, affine, count)


@given(grids(), st.data(), st.floats(0.15, 0.85))
def test_a_displaced_slice_is_refused(grid: tuple[NDArray[np.float64], int], data: st.DataObject, part: float) -> None:
    """A slice off its place by 15 to 85 percent of the spacing is never taken for a regular one."""
    affine, count = grid
    assume(count >= 6)  # three slices 2 mm and 1 mm apart could as well lack one between
    which = data.draw(st.integers(1, count - 2))
    planes = planes_of(affine, count)
    moved = np.array(planes[which].position) + part * affine[:3, 0]
    planes[which] = dataclasses.replace(planes[which], position=tuple(moved))
    with pytest.raises(InputRefused) as refusal:
        stack(planes, gaps="flag", uneven="refuse")
    assert refusal.value.code == "uneven"


@given(grids(), st.floats(-0.6, 0.6), st.floats(-0.6, 0.6), st.randoms(use_true_random=False))
def test_a_tilted_gantry_gives_a_sheared_stack(
    grid: tuple[NDArray[np.float64], int], down: float, right: float, random: object
) -> None:
    """Slices that drift sideways evenly keep their places: the affine leads through all of their corners."""
    affine, count = grid
    sheared = affine.copy()
    between = np.linalg.norm(affine[:3, 0])
    for part, axis in ((down, 1), (right, 2)):
        sheared[:3, 0] += part * between * affine[:3, axis] / np.linalg.norm(affine[:3, axis])
    planes = planes_of(sheared, count)
    random.shuffle(planes)  # type: ignore[attr-defined]
    found = stack(planes, gaps="refuse")
    # A drift of less than a tenth of a pixel over the whole stack counts as none.
    pixel = min(np.linalg.norm(affine[:3, axis]) for axis in (1, 2))
    assert agrees(found, sheared, count, within=0.1 + SHIFT_TOLERANCE * pixel)
    assert found.tilt == pytest.approx(math.degrees(math.atan(math.hypot(down, right))), abs=1.5) or found.tilt == 0


@given(grids(), st.floats(0.3, 3.0), st.data())
def test_an_uneven_drift_is_refused(grid: tuple[NDArray[np.float64], int], pixels: float, data: st.DataObject) -> None:
    """One slice that is moved sideways alone makes no stack, not even that of a tilted gantry."""
    affine, count = grid
    assume(count >= 4)
    which = data.draw(st.integers(1, count - 2))
    planes = planes_of(affine, count)
    moved = np.array(planes[which].position) + pixels * affine[:3, 1] * max(
        1.0, np.linalg.norm(affine[:3, 2]) / np.linalg.norm(affine[:3, 1])
    )
    planes[which] = dataclasses.replace(planes[which], position=tuple(moved))
    with pytest.raises(InputRefused) as refusal:
        stack(planes, gaps="flag")
    assert refusal.value.code == "sheared"
