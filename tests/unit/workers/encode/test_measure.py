"""A volume is a count of voxels times the determinant of the affine, in the unit the manifest asks for."""

import numpy as np
import pytest

from tests.support.result_set import AXIAL, SHAPE, Case, balls, code, frame, manifest, oblique, volume_of
from workers.encode.measure import measure


def volume(affine, shape=SHAPE):
    """A volume without images: nothing of them is needed to measure."""
    return volume_of([], Case(affine=affine, shape=shape, missing=range(shape[0])))


def test_volume_is_count_times_voxel():
    """100 voxels of 3 x 1.2 x 0.9 mm are 0.324 mL."""
    labels = np.zeros(SHAPE, np.uint8)
    labels.reshape(-1)[:100] = 1
    (result,) = measure(labels, volume(AXIAL), manifest())
    assert result.value == pytest.approx(100 * 3.0 * 1.2 * 0.9 / 1000, rel=1e-12)
    assert (result.unit.value, result.unit.scheme, result.segment) == ("mL", "UCUM", 1)


@pytest.mark.parametrize(("unit", "factor"), [("mL", 1.0), ("ml", 1.0), ("cm3", 1.0), ("mm3", 1000.0)])
def test_unit_of_the_manifest(unit, factor):
    """The same tissue in every unit a manifest may ask for."""
    contract = manifest().model_dump()
    contract["output"]["measurements"][0]["unit"] = code(unit, "UCUM", unit)
    asked = type(manifest()).model_validate(contract)
    (result,) = measure(balls(SHAPE), volume(AXIAL), asked)
    expected = np.count_nonzero(balls(SHAPE)) * 3.24 / 1000 * factor
    assert result.value == pytest.approx(expected)


def test_sheared_stack_has_less_volume_than_its_edges():
    """A gantry tilt of 30 degrees: the determinant counts, not the product of the three spacings."""
    tilted = frame((1, 0, 0), (0, 1, 0), (0, np.sin(np.pi / 6), np.cos(np.pi / 6)))
    assert volume(tilted).voxel_volumes[0] == pytest.approx(3.24 * np.cos(np.pi / 6))


def test_handedness_and_direction_do_not_matter():
    """Turned or upside down, the same voxels have the same volume."""
    backwards = frame((1, 0, 0), (0, 1, 0), (0, 0, -1))
    assert volume(oblique()).voxel_volumes[0] == pytest.approx(3.24)
    assert volume(backwards).voxel_volumes[0] == pytest.approx(3.24)


def test_each_segment_is_measured_alone_and_nothing_is_zero():
    """Two segments give two numbers; one that is not there gives 0, not a missing number."""
    labels = balls(SHAPE, 2)
    labels[labels == 2] = 0
    first, second = measure(labels, volume(AXIAL), manifest(2))
    assert first.value > 0
    assert (second.value, second.segment) == (0.0, 2)
