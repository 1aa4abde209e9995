"""A whole job on every odd source: voxels lie where the images say, and public validators find nothing wrong."""

import numpy as np
import pytest
from pydicom import dcmread
from scipy.spatial import cKDTree

from tests.conformance.conftest import run as run_program
from tests.support.bundles import write_bundle
from tests.support.odd_sources import SOURCES, body, write
from tests.support.series import job_order
from workers.infer.model import open_model
from workers.tasks import run


@pytest.fixture(scope="module")
def bright(tmp_path_factory):
    """A model that marks what is brighter than half of the largest value."""
    return open_model(write_bundle(tmp_path_factory.mktemp("bundle"), modality=("CT", "MR", "PT")))


def outcome(bright, name, directory):
    """What a whole job says of a source."""
    paths = write(SOURCES[name], directory / "in")
    return run(job_order(paths, directory, directory / "out"), bright, lambda _: None)


def placed(directory):
    """Millimetres of all painted pixels, by what the segmentation itself says."""
    dataset = dcmread(directory / "out/seg.dcm")
    shared = dataset.SharedFunctionalGroupsSequence[0]
    found = []
    pixels = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    for item, plane in zip(dataset.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        measures = (item.get("PixelMeasuresSequence") or shared.PixelMeasuresSequence)[0]
        cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
        rows, columns = np.nonzero(plane)
        between_rows, between_columns = map(float, measures.PixelSpacing)
        origin = np.array(item.PlanePositionSequence[0].ImagePositionPatient, float)
        found.append(
            origin + np.outer(columns * between_columns, cosines[:3]) + np.outer(rows * between_rows, cosines[3:])
        )
    return np.concatenate(found)


def painted(odd):
    """The same by the grid that the source was made of."""
    places = np.array(odd.options.get("places") or range(odd.shape[0]), float)
    index = np.argwhere(body(odd.shape) > 500)
    index = np.column_stack([places[index[:, 0]], index[:, 1:], np.ones(len(index))])
    return (index @ odd.affine.T)[:, :3]


@pytest.mark.parametrize("name", [name for name, odd in SOURCES.items() if not odd.code])
def test_voxels_and_validators(bright, name, tmp_path):
    """Every voxel that is bright in the source, and no other, is painted where it lies in the patient, to a hundredth of a mm."""
    odd = SOURCES[name]
    told = outcome(bright, name, tmp_path)
    assert (told.status, told.reason) == ("complete", "")
    assert odd.said in " ".join(told.flags)
    found, expected = placed(tmp_path), painted(odd)
    apart, partner = cKDTree(expected).query(found)
    if odd.exact:
        assert len(found) == len(expected) == len(set(partner))
        assert apart.max() < 0.01
    else:
        assert len(found) == pytest.approx(len(expected), rel=0.1)
        assert apart.max() < 1.5
    for one in told.objects:
        done = run_program("dciodvfy", "-new", tmp_path / "out" / one.file)
        wrong = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("Error", "Warning"))]
        assert (one.role, [line for line in wrong if "DeviceUID" not in line], done.returncode) == (one.role, [], 0)


@pytest.mark.parametrize("name", [name for name, odd in SOURCES.items() if odd.code])
def test_what_has_no_place_is_refused(bright, name, tmp_path):
    """With a code of its own."""
    told = outcome(bright, name, tmp_path)
    assert (told.status, told.reason_code) == ("refused", SOURCES[name].code)
