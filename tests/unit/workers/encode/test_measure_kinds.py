"""Diameters, surface, count and intensities, against bodies whose measures are known."""

import math

import numpy as np
import pytest

from gateway.bundle.output import MeasurementSpec
from tests.support.result_set import AXIAL, Case, code, frame, manifest, oblique, result_set
from workers.encode.measure import diameters, lesions, measure, surface
from workers.load.volume import Volume

FINE = frame((1, 0, 0), (0, 1, 0), spacing=(1.0, 0.8, 0.8))


def ellipsoid(shape, affine, radii):
    """A body whose half axes, in mm along slices, rows and columns, are given."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) - (np.array(shape) - 1) / 2
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return (((grid * spacing) / radii) ** 2).sum(axis=-1) < 1


@pytest.mark.parametrize("affine", [FINE, oblique()], ids=["axial", "oblique"])
def test_diameters_of_an_ellipse(affine):
    """Long and short axis in the plane, to a pixel; the axis through the slices does not count."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    mask = ellipsoid((41, 61, 81), affine, (50.0, 12.0, 25.0))
    longest, across = diameters(mask, affine)
    assert longest == pytest.approx(50.0, abs=1.5 * spacing[2])
    assert across == pytest.approx(24.0, abs=1.5 * spacing[1])


def test_diameters_of_a_leaning_ellipse():
    """A diameter need not run along the rows or columns."""
    rows, columns = np.ogrid[-40:41, -40:41]
    along, over = (rows + columns) / math.sqrt(2), (rows - columns) / math.sqrt(2)
    mask = ((along / 30) ** 2 + (over / 10) ** 2 < 1)[None]
    longest, across = diameters(mask, np.eye(4))
    assert longest == pytest.approx(60, abs=2)
    assert across == pytest.approx(20, abs=2)


def test_diameters_are_those_of_one_lesion():
    """Two lesions in a slice are not one long one; one pixel has a diagonal; nothing has no diameter."""
    mask = np.zeros((1, 20, 60), bool)
    mask[0, 5:9, 5:9] = mask[0, 5:9, 50:54] = True
    assert diameters(mask, np.eye(4))[0] == pytest.approx(math.hypot(4, 4))
    mask[:] = False
    assert diameters(mask, np.eye(4)) == (0.0, 0.0)
    mask[0, 3, 3] = True
    assert diameters(mask, np.diag([1.0, 3.0, 4.0, 1.0])) == pytest.approx((5.0, 3.75))


@pytest.mark.parametrize(
    "affine", [np.eye(4), np.diag([2.0, 1.0, 1.0, 1.0]), oblique()], ids=["even", "thick", "oblique"]
)
def test_surface_of_a_ball(affine):
    """4 pi r2 to five per cent, where counting faces would say half as much again."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    radius = 24.0
    shape = tuple((2 * np.ceil(radius / spacing) + 5).astype(int))
    assert surface(ellipsoid(shape, affine, radius), affine) == pytest.approx(4 * math.pi * radius**2, rel=0.05)
    assert surface(np.zeros((3, 3, 3), bool), affine) == 0.0


def test_lesions_that_touch_at_a_corner_are_one():
    """26 neighbours."""
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 3, 3] = True
    assert lesions(mask)[1] == 2


def spec(kind, unit, **more):
    """A measurement as the manifest has it."""
    return {"kind": kind, "segment": 1, "name": code("1", "99TEST", kind), "unit": code(unit, "UCUM", unit), **more}


KINDS = [
    spec("volume", "mm3"),
    spec("longest_diameter", "cm"),
    spec("perpendicular_diameter", "mm"),
    spec("surface", "cm2"),
    spec("count", "{lesions}"),
    spec("mean", "[hnsf'U]"),
    spec("percentile", "[hnsf'U]", percentile=95),
]


def output(kinds):
    """The output part of a manifest that asks for these."""
    return {**manifest().output.model_dump(exclude={"measurements"}), "measurements": kinds}


def test_units_and_values_of_the_images():
    """Centimetres are tenths of millimetres; mean and percentile are those of the voxels under the mask."""
    voxels = np.arange(1000, dtype=np.float32).reshape(10, 10, 10)
    labels = np.zeros((10, 10, 10), np.uint8)
    labels[2:5, 3:6, 3:6] = 1
    volume = Volume(voxels=voxels, affine=np.eye(4), headers=(None,) * 10)
    values = [found.value for found in measure(labels, volume, manifest(output=output(KINDS)))]
    assert values[0] == 27
    assert values[1] == pytest.approx(math.hypot(3, 3) / 10)
    assert values[4] == 1
    assert values[5] == pytest.approx(voxels[labels > 0].mean())
    assert values[6] == pytest.approx(np.percentile(voxels[labels > 0], 95))


@pytest.mark.parametrize("empty", [False, True])
def test_gate_accepts_every_kind(tmp_path, empty):
    """Of nothing, sizes are 0, and there is no mean."""

    def nothing(labels):
        labels[:] = 0

    case = Case(affine=AXIAL, paint=nothing if empty else None, roles=("seg", "sr", "sr-data", "pdf"))
    found = result_set(tmp_path, case, output=output(KINDS))
    found.verify()
    assert len(found.measurements) == (5 if empty else 7)


@pytest.mark.parametrize(
    "wrong",
    [spec("volume", "mL"), spec("longest_diameter", "mm2"), spec("percentile", "1"), spec("mean", "1", percentile=5)],
)
def test_units_that_do_not_fit(wrong):
    """A volume in mm, a percentile that is none."""
    if wrong["kind"] == "volume":
        wrong["unit"] = code("mm", "UCUM", "mm")
    with pytest.raises(ValueError, match=r"unit of a|percentile"):
        MeasurementSpec.model_validate(wrong)
