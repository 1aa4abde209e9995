"""Two series of one body on different grids, either of them unevenly spaced: the second lies on the slices of the first."""

import dataclasses

import numpy as np
import pytest

from gateway.bundle.manifest import Manifest
from tests.support.result_set import frame, manifest
from tests.support.series import job_order, write_series
from workers.load.several import load_inputs

UNEVEN = (0, 1, 2, 3, 4.5, 6, 7.5, 9)


def field(affine, shape, places):
    """A quantity that grows evenly through the patient, sampled on a grid."""
    index = np.stack(np.meshgrid(places, *map(np.arange, shape[1:]), indexing="ij"), axis=-1)
    return (index @ affine[:3, :3].T + affine[:3, 3]) @ [2.0, -3.0, 7.0] + 2000


def series(directory, name, affine, shape, places):
    """Files of the field as a series of its own in one study and frame of reference."""
    common = {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4", "SeriesInstanceUID": f"1.2.3.{name}"}
    return write_series(
        directory / name, np.rint(field(affine, shape, places)), affine, places=places, seed=name, attributes=common
    )


@pytest.mark.parametrize(("first", "second"), [(UNEVEN, range(14)), (range(8), (0, 1, 2, 3, 4, 6, 8, 10, 12, 14))])
def test_the_second_lies_on_the_first(tmp_path, first, second):
    """Each voxel of the companion is what lies at its millimetres, wherever the slices of both are."""
    one = frame((1, 0, 0), (0, 1, 0), spacing=(3.0, 1.5, 1.5), origin=(-20, -20, -10))
    two = frame((1, 0, 0), (0, 1, 0), spacing=(2.5, 2.0, 2.0), origin=(-26, -26, -14))
    shapes = (len(first), 24, 24), (len(second), 28, 28)
    files = {
        name: job_order(series(tmp_path, name, affine, shape, tuple(places)), tmp_path, tmp_path / "out").inputs
        for name, affine, shape, places in (("1", one, shapes[0], first), ("2", two, shapes[1], second))
    }
    content = manifest().model_dump(mode="json", exclude={"input"}, exclude_defaults=True)
    content |= {"manifest": 1, "inputs": [{"name": "a", "modality": ["MR"]}, {"name": "b", "modality": ["MR"]}]}
    content |= {"registration": {"agreement": 0, "overlap": 0, "method": "never"}}
    inputs = [
        dataclasses.replace(file, input=name) for name, number in (("a", "1"), ("b", "2")) for file in files[number]
    ]
    order = dataclasses.replace(job_order([], tmp_path, tmp_path / "out"), inputs=tuple(inputs))
    volume = load_inputs(order, Manifest.model_validate(content))
    expected = field(one, shapes[0], tuple(first))
    (companion,) = volume.companions
    inside = companion.voxels > 0
    assert inside.mean() > 0.8
    assert np.abs(companion.voxels - expected)[inside].max() < 2
    assert len(companion.headers) == len(second)
    assert bool(volume.places) == (first is UNEVEN)
