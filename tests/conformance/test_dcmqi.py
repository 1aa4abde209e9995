"""dcmqi, which 3D Slicer reads segmentations with, finds every voxel where the model painted it."""

import nibabel
import numpy as np
import pytest

from tests.conformance.conftest import run
from tests.support.result_set import CASES, UPRIGHT, written

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def decoded(name, directory):
    """Segment number -> mask on the volume's own grid, read through dcmqi and placed by its millimetres alone."""
    found = written(name)
    done = run(
        "segimage2itkimage", "--inputDICOM", found.path("seg"), "--outputDirectory", directory, "-t", "nii", "-p", "s"
    )
    assert done.returncode == 0, done.stderr
    masks = {}
    for file in directory.glob("s-*.nii*"):
        image = nibabel.load(file)
        to_grid = np.linalg.inv(found.volume.affine) @ RAS_TO_LPS @ image.affine
        places = np.argwhere(np.asarray(image.dataobj) > 0) @ to_grid[:3, :3].T + to_grid[:3, 3]
        assert np.allclose(places, places.round(), atol=1e-2)
        mask = np.zeros(found.labels.shape, bool)
        mask[tuple(places.round().astype(int).T)] = True
        masks[int(file.name.removeprefix("s-").split(".")[0])] = mask
    return masks


@pytest.mark.parametrize("name", UPRIGHT)
def test_round_trip(name, tmp_path):
    """Voxel-equal in patient space for each segment, in every orientation, over gaps, and where nothing is."""
    found = written(name)
    real = [index for index, header in enumerate(found.volume.headers) if header is not None]
    masks = decoded(name, tmp_path)
    for spec in found.manifest.output.segments:
        mask = masks.get(spec.number, np.zeros(found.labels.shape, bool))
        assert np.array_equal(mask[real], found.labels[real] == spec.number)
        assert spec.number in masks or not (found.labels == spec.number).any()


@pytest.mark.parametrize("name", [name for name in UPRIGHT if CASES[name].mapped])
def test_map_round_trip(name, tmp_path):
    """Every number of a parametric map is where the model put it, by its millimetres alone."""
    found = written(name)
    done = run("paramap2itkimage", "--inputDICOM", found.path("pm"), "--outputDirectory", tmp_path, "-t", "nii")
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("*.nii*")
    image = nibabel.load(file)
    to_volume = np.linalg.inv(found.volume.affine) @ RAS_TO_LPS @ image.affine
    index = np.indices(image.shape).reshape(3, -1)
    places = to_volume[:3, :3] @ index + to_volume[:3, 3:]
    assert np.allclose(places, places.round(), atol=1e-2)
    (expected,) = found.maps
    read = np.asarray(image.dataobj, np.float32).reshape(-1)
    assert np.allclose(read, expected.values[tuple(places.round().astype(int))], atol=1e-6)
