"""Two contrasts of one head that lay differently: found again to a part of a millimetre, and told from strangers."""

from __future__ import annotations

import numpy as np

from tests.support.contrasts import flair, moved, resampled, template
from workers.load.registration import align, shared_information
from workers.load.volume import Volume


def volume(voxels: np.ndarray, affine: np.ndarray) -> Volume:
    return Volume(voxels=voxels.astype(np.float32), affine=affine, headers=())


def test_another_contrast_on_another_grid_is_found() -> None:
    """Turned by 20 degrees, 40 mm away, sagittal, other voxels: within half a millimetre, and the same each time."""
    brain = template(5.0)
    motion = moved((12.0, -9.0, 14.0), (25.0, -20.0, 22.0))
    turned = flair(brain.t1, np.zeros(brain.t1.shape, bool)).transpose(2, 1, 0)[::-1]
    order = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [-1, 0, 0, brain.t1.shape[2] - 1], [0, 0, 0, 1]], float)
    first, second = volume(brain.t1, brain.affine), volume(turned, motion @ brain.affine @ order)
    found = align(first, second, search=True)
    places = np.array([[60, 0, 0, 1], [0, -70, 30, 1], [-60, 40, -30, 1]], float).T
    assert np.linalg.norm(((found.motion - motion) @ places)[:3], axis=0).max() < 0.5
    assert found.agreement > 0.3 and found.overlap > 0.95
    assert align(first, second, search=False).agreement < 0.1
    assert np.array_equal(found.motion, align(first, second, search=True).motion)


def test_shared_information() -> None:
    """One for any scale of the same, none for strangers."""
    one, other = np.random.default_rng(0).random((2, 200_000)).astype(np.float32)
    assert shared_information(one, 5 - 3 * one) > 0.95
    assert shared_information(one, other) < 0.01


def test_resampling_keeps_places() -> None:
    """What lies on the first one's grid afterwards is what lies there in the patient."""
    brain = template(5.0)
    motion = moved((5.0, 0.0, 0.0), (4.0, 0.0, 8.0))
    shape = tuple(n + 8 for n in brain.t1.shape)
    there = resampled(brain.t1, motion @ brain.affine, brain.affine, shape)
    from workers.load.registration import resample

    back = resample(there, brain.affine, motion, brain.affine, brain.t1.shape)
    assert np.corrcoef(back[10:20].ravel(), brain.t1[10:20].ravel())[0, 1] > 0.97
