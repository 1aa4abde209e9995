"""What people see: the right grey, the right colour, the right way round."""

import dataclasses

import numpy as np
import pytest

from gateway.domain.messages import Code, MeasurementResult
from tests.support.result_set import IDENTITY, frame, written
from workers.encode.picture import draw, key_slices, srgb
from workers.encode.source import Source
from workers.encode.words import value


def source(name="axial", **changes):
    """The source of a case."""
    found = written(name)
    return Source(
        volume=dataclasses.replace(found.volume, **changes),
        labels=found.labels,
        measurements=found.measurements,
        manifest=found.manifest,
        identity=IDENTITY,
        order=found.order,
    )


def test_window_of_the_images():
    """Centre and width say what is black and what is white; a pixel outside every outline keeps its grey."""
    made = source(voxels=np.full(written("axial").labels.shape, 60.0, np.float32))
    for header in made.volume.headers:
        header.WindowCenter, header.WindowWidth = [50, 400], [40, 1500]
    try:
        picture = draw(made, 4, 96)
    finally:
        for header in made.volume.headers:
            del header.WindowCenter, header.WindowWidth
    assert picture.pixels[0, 0].tolist() == [191, 191, 191]  # three quarters of the way from 30 to 70


def test_outline_lies_where_the_label_is():
    """Coloured pixels are the mask, scaled; everything else is grey."""
    made = source()
    picture = draw(made, 4, 432)
    coloured = np.ptp(picture.pixels.astype(int), axis=2) > 4
    _, rows, columns = made.volume.spacing
    scale = 432 / max(40 * rows, 48 * columns)
    mask = np.argwhere(made.masks.on(4, 1)) + 0.5
    expected = mask * (rows * scale, columns * scale)
    found = np.argwhere(coloured)
    assert np.allclose(found.mean(axis=0), expected.mean(axis=0), atol=1.5)
    assert abs(len(found) - len(mask) * rows * columns * scale**2) < 0.05 * len(found)


def test_pixels_are_square():
    """40 rows of 1.2 mm and 48 columns of 0.9 mm."""
    picture = draw(source(), 4, 480)
    assert (picture.rows, picture.columns) == (480, 432)


@pytest.mark.parametrize(
    ("affine", "sides"),
    [
        (frame((1, 0, 0), (0, 1, 0)), "RALP"),
        (frame((0, 1, 0), (0, 0, -1)), "AHPF"),
        (frame((-1, 0, 0), (0, 0, -1)), "LHRF"),
    ],
    ids=["axial", "sagittal", "coronal from behind"],
)
def test_sides(affine, sides):
    """Left, top, right and bottom of the picture, by the direction cosines alone."""
    picture = draw(source(affine=affine), 4, 48)
    assert picture.left + picture.top + picture.right + picture.bottom == sides


def test_key_slices():
    """The largest slice of each segment is among them, no interpolated slice is, and there are not too many."""
    made = source("slices missing")
    chosen = key_slices(made)
    assert 4 not in chosen
    assert set(chosen) <= set(made.real_slices)
    assert int(made.masks.counts[list(made.real_slices), 1].max()) in made.masks.counts[list(chosen), 1]
    assert key_slices(source("nothing found")) == (4,)


def test_colours():
    """CIELab of the manifest, as sRGB: white, black, and a red."""
    assert srgb((100.0, 0.0, 0.0)) == pytest.approx((255, 255, 255), abs=1)
    assert srgb((0.0, 0.0, 0.0)) == (0, 0, 0)
    red, green, blue = srgb((54.29, 80.81, 69.89))  # sRGB red under D50
    assert (red, green, blue) == pytest.approx((255, 0, 0), abs=3)


def test_one_voxel_is_seen_in_a_smaller_picture():
    """A lesion of one pixel of a large detector is not lost where the picture has fewer pixels than the image."""
    made = source()
    labels = np.zeros_like(made.labels)
    labels[4, 21, 30] = 1
    picture = draw(dataclasses.replace(made, labels=labels), 4, 16)
    coloured = np.argwhere(np.ptp(picture.pixels.astype(int), axis=2) > 4)
    assert coloured.tolist() == [[21 * picture.rows // 40, 30 * picture.columns // 48]]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0.0, "0.00"),
        (0.0033, "0.0033"),
        (0.0996, "0.100"),
        (0.3, "0.30"),
        (3e-7, "3.0e-07"),
        (-0.02, "-0.020"),
        (1234.5, "1 234"),
    ],
)
def test_small_is_not_written_as_nothing(number, said):
    """A lesion of one voxel has a volume."""
    unit = Code(value="mL", scheme="UCUM", meaning="milliliter")
    assert value(MeasurementResult(name=unit, value=number, unit=unit)) == said
