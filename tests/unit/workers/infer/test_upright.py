"""A stack of a tilted gantry, set upright for a model, and its labels back on the slices."""

import numpy as np
import pytest

from tests.support.bundles import write_bundle
from tests.support.result_set import AXIAL, frame, oblique
from workers.infer.model import open_model
from workers.infer.predict import infer
from workers.infer.upright import straighten
from workers.load.volume import Volume

CENTRE = np.array([-12.0, 36.0, -22.0])


def sheared(affine, down=0.0, right=0.0):
    """The affine with each slice moved by parts of a row and of a column against the one before."""
    affine = affine.copy()
    affine[:3, 0] += down * affine[:3, 1] + right * affine[:3, 2]
    return affine


def places(affine, shape):
    """Millimetres of all voxels, (slices, rows, columns, 3)."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return grid @ affine[:3, :3].T + affine[:3, 3]


def ball(affine, shape, radius=9.0):
    """A ball in the patient, as this grid would have sampled it: bright in the middle, dark outside."""
    middle = places(affine, shape)[tuple(length // 2 for length in shape)]
    distance = np.linalg.norm(places(affine, shape) - middle, axis=-1)
    return np.clip((radius - distance) * 100, -500, 500).astype(np.float32), middle


def volume(affine, voxels):
    """A volume without images."""
    return Volume(voxels=voxels, affine=affine, headers=(None,) * len(voxels))


@pytest.mark.parametrize("base", [AXIAL, oblique(), frame((1, 0, 0), (0, 1, 0), (0, 0, -1))])
@pytest.mark.parametrize(("down", "right"), [(0.8, 0.0), (-0.55, 0.3), (0.0, -1.3)])
def test_upright_is_the_same_patient(base, down, right):
    """Each upright voxel holds what lies at its millimetres, and the axes are at right angles."""
    affine, shape = sheared(base, down, right), (11, 40, 48)
    voxels, middle = ball(affine, shape)
    upright = straighten(volume(affine, voxels)).volume
    steps = upright.affine[:3, :3]
    assert np.allclose(np.abs(steps.T @ steps), np.diag(np.diag(steps.T @ steps)), atol=1e-9)
    distance = np.linalg.norm(places(upright.affine, upright.voxels.shape) - middle, axis=-1)
    inside = distance < 7.0
    assert np.abs(upright.voxels - np.clip((9.0 - distance) * 100, -500, 500))[inside].max() < 60
    assert (upright.voxels[distance > 12] < -200).all()


def test_upright_stacks_stay_as_they_are():
    """Nothing is moved, copied or interpolated without need."""
    assert straighten(volume(oblique(), np.zeros((5, 8, 8), np.float32))) is None


@pytest.mark.parametrize(("down", "right"), [(0.8, 0.0), (-0.55, 0.3), (1.7, -1.3)])
def test_labels_come_back_to_their_slices(tmp_path, down, right):
    """A model that marks what is bright marks the same millimetres as without the tilt, to a pixel at the rim."""
    affine, shape = sheared(AXIAL, down, right), (11, 40, 48)
    voxels, middle = ball(affine, shape)
    labels = infer(open_model(write_bundle(tmp_path / "b")), volume(affine, voxels))
    distance = np.linalg.norm(places(affine, shape) - middle, axis=-1)
    assert labels.shape == shape
    assert (labels[distance < 7.5] == 1).all()
    assert (labels[distance > 10.5] == 0).all()
