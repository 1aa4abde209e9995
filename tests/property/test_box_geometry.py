"""Whatever the stack and the box: its outline on a slice holds the pixels whose centres lie in the box, and no others."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.test_encode_geometry import SPACING, TURN, turned
from tests.support.result_set import frame
from workers.encode.section import area, section
from workers.load.places import Box
from workers.verify.outlines import enclosed

ROWS, COLUMNS, SLICES = 40, 36, 12
NEAR = 1e-3


@st.composite
def stacks(draw):
    """Any orientation, handedness, spacing and shear."""
    across, down, through = turned(draw(st.tuples(TURN, TURN, TURN)))
    if draw(st.booleans()):
        through = -through
    origin = draw(st.tuples(*[st.floats(-900, 900)] * 3))
    affine = frame(across, down, through, spacing=draw(st.tuples(SPACING, SPACING, SPACING)), origin=origin)
    affine[:3, 0] += draw(st.floats(-0.5, 0.5)) * affine[:3, 1] + draw(st.floats(-0.5, 0.5)) * affine[:3, 2]
    return affine


@st.composite
def boxes(draw, affine):
    """A box along axes of its own, which may be those of the stack, with its middle in the images."""
    middle = affine @ [
        draw(st.floats(0, SLICES - 1)), draw(st.floats(0, ROWS - 1)), draw(st.floats(0, COLUMNS - 1)), 1.0,
    ]  # fmt: skip
    axes = affine[:3, :3].T if draw(st.booleans()) else turned(draw(st.tuples(TURN, TURN, TURN)))
    edges = (
        axes
        / np.linalg.norm(axes, axis=1, keepdims=True)
        * np.reshape(draw(st.tuples(*[st.floats(1.0, 40.0)] * 3)), (3, 1))
    )
    return Box(corner=middle[:3] - edges.sum(axis=0) / 2, edges=edges, label=0, score=1.0)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_outline_is_the_cut_through_the_box(data):
    """Judged pixel by pixel in the patient's millimetres, on the slice nearest to the middle of the box."""
    affine = data.draw(stacks())
    box = data.draw(boxes(affine))
    corners = (np.linalg.inv(affine) @ np.column_stack([box.corners, np.ones(8)]).T)[0]
    index = int(np.clip(round(float(corners.mean())), 0, SLICES - 1))
    level = float(np.clip(index, corners.min(), corners.max()))
    points = section(box, affine, index, ROWS, COLUMNS)
    down, across = np.meshgrid(np.arange(ROWS), np.arange(COLUMNS), indexing="ij")
    places = affine[:3, 3] + level * affine[:3, 0] + down[..., None] * affine[:3, 1] + across[..., None] * affine[:3, 2]
    parts = (places - box.corner) @ np.linalg.inv(box.edges)
    surely = (parts > NEAR).all(axis=2) & (parts < 1 - NEAR).all(axis=2)
    maybe = (parts > -NEAR).all(axis=2) & (parts < 1 + NEAR).all(axis=2)
    inside = enclosed(points, ROWS, COLUMNS) if len(points) else np.zeros((ROWS, COLUMNS), bool)
    assert not (surely & ~inside).any()
    assert not (inside & ~maybe).any()
    if len(points):
        assert np.array_equal(points[0], points[-1])
        assert points.min() >= -1e-9
        assert (points <= [COLUMNS + 1e-9, ROWS + 1e-9]).all()
        # Pixels of the border may lie in or out: an outline of n sides passes through so many of them at most.
        border = np.abs(np.diff(points, axis=0)).sum() + 4
        assert abs(area(points) - inside.sum()) <= border
