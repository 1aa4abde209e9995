"""Labels on any grid of a model's own return to the images by geometry."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gateway.domain.errors import ModelOutputInvalid
from workers.infer.regrid import regrid, same_grid

ANGLE = st.floats(-np.pi, np.pi)
STEP = st.floats(0.5, 4.0)
SHAPE = (9, 14, 12)


@st.composite
def affines(draw):
    """Any grid of right angles around the origin, left- or right-handed."""
    affine = np.eye(4)
    turned = Rotation.from_euler("xyz", [draw(ANGLE), draw(ANGLE), draw(ANGLE)]).as_matrix()
    affine[:3, :3] = turned * [draw(STEP) * draw(st.sampled_from([1, -1])) for _ in range(3)]
    return affine


def centred(affine, shape):
    """The grid with its middle at the origin."""
    affine = affine.copy()
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def half_space(affine, shape, direction):
    """What lies on one side of a plane through the origin, sampled on a grid; and the distance from the plane in mm."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    distance = (grid @ affine[:3, :3].T + affine[:3, 3]) @ direction
    return distance > 0, distance


@settings(max_examples=60, deadline=None)
@given(affines(), affines(), st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda d: np.linalg.norm(d) > 0.1))
def test_every_voxel_keeps_its_place(images, model, direction):
    """A label is where it was in the patient, to half the diagonal of the model's voxels."""
    direction = np.array(direction) / np.linalg.norm(direction)
    large = (60, 60, 60)
    images, model = centred(images, SHAPE), centred(model, large)
    labels, _ = half_space(model, large, direction)
    found = regrid(labels[None].astype(np.uint8), model, images, SHAPE)[0]
    expected, distance = half_space(images, SHAPE, direction)
    reach = np.linalg.inv(model) @ np.append(np.zeros(3), 1)
    assert np.allclose(reach[:3], 29.5)
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    index = (np.linalg.inv(model) @ images)[:3]
    inside = np.all(np.abs(grid @ index[:, :3].T + index[:, 3] - 29.5) < 29, axis=-1)
    clear = inside & (np.abs(distance) > 0.51 * np.linalg.norm(model[:3, :3], "fro"))
    assert np.array_equal(found[clear], expected[clear])


def test_cropped_output_is_background_outside():
    """A model that saw a part of the images marks nothing elsewhere."""
    crop = np.eye(4)
    crop[:3, 3] = 2, 3, 4
    labels = np.ones((1, 3, 4, 5), np.uint8)
    found = regrid(labels, crop, np.eye(4), SHAPE)[0]
    assert found.sum() == 60
    assert found[2:5, 3:7, 4:9].all()


def test_grids_that_do_not_meet_are_refused():
    """Labels of somewhere else."""
    away = np.eye(4)
    away[:3, 3] = 500
    with pytest.raises(ModelOutputInvalid):
        regrid(np.ones((1, 3, 3, 3), np.uint8), away, np.eye(4), SHAPE)
    with pytest.raises(ModelOutputInvalid):
        regrid(np.ones((1, 3, 3, 3), np.uint8), np.zeros((4, 4)), np.eye(4), SHAPE)


def test_rounding_is_no_other_grid():
    """Affines that went through single precision are the same."""
    affine = np.diag([3.0, 0.9, 0.9, 1.0])
    assert same_grid(affine.astype(np.float32).astype(float), affine, (300, 512, 512))
    assert not same_grid(np.diag([3.0, -0.9, 0.9, 1.0]), affine, (3, 4, 4))
