"""The outline of the key region encloses exactly the pixels it speaks of."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from workers.encode import outline
from workers.encode.outline import key_region
from workers.verify.outlines import enclosed


def shoelace(points):
    """Area of a closed polygon."""
    (x, y), (u, v) = points[:-1].T, points[1:].T
    return abs(float(np.sum(x * v - u * y))) / 2


def test_slice_with_most_of_the_mask():
    """Of all slices the one with most pixels, but only among those that are images."""
    mask = np.zeros((3, 6, 6), bool)
    mask[0, :2, :2] = mask[1, :4, :4] = mask[2, :3, :3] = True
    assert key_region(mask, (0, 1, 2)).slice == 1
    assert key_region(mask, (0, 2)).slice == 2


def test_outline_of_one_pixel():
    """Pixel (row 2, column 3) spans column 3 to 4 and row 2 to 3 in image coordinates."""
    mask = np.zeros((1, 5, 6), bool)
    mask[0, 2, 3] = True
    region = key_region(mask, (0,))
    assert region.points.tolist() == [[3, 2], [4, 2], [4, 3], [3, 3], [3, 2]]
    assert region.pixels == 1


def test_holes_are_inside_and_other_parts_are_not():
    """The largest part counts with its holes; a speck elsewhere does not."""
    mask = np.zeros((1, 9, 9), bool)
    mask[0, 1:6, 1:6], mask[0, 3, 3], mask[0, 8, 8] = True, False, True
    assert key_region(mask, (0,)).pixels == 25


def test_nothing_found_is_the_frame_of_the_middle_image():
    """No pixel is claimed, and the outline is what was looked at."""
    region = key_region(np.zeros((5, 4, 7), bool), (0, 1, 2, 3, 4))
    assert (region.slice, region.pixels) == (2, 0)
    assert region.points.min(axis=0).tolist() == [0, 0]
    assert region.points.max(axis=0).tolist() == [7, 4]


@settings(max_examples=200, deadline=None)
@given(arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_any_mask(mask):
    """Whatever the mask: closed, its area is its pixels, and it encloses the largest part with its holes."""
    region = key_region(mask[np.newaxis], (0,))
    assert np.array_equal(region.points[0], region.points[-1])
    inside = enclosed(region.points, *mask.shape)
    if not mask.any():
        assert inside.all()
        return
    assert shoelace(region.points) == region.pixels == inside.sum()
    parts, _ = ndimage.label(mask)
    assert (inside & mask).sum() >= np.bincount(parts[mask]).max()
    assert not (inside & ~ndimage.binary_fill_holes(mask)).any()


def test_frayed_outline_is_cut_until_it_can_be_stored(monkeypatch):
    """A comb whose outline is too long for Graphic Data: a part of it remains, still on the mask."""
    monkeypatch.setattr(outline, "MAX_POINTS", 40)
    mask = np.zeros((1, 12, 60), bool)
    mask[0, 0], mask[0, :, ::2] = True, True
    region = key_region(mask, (0,))
    assert len(region.points) <= 40
    inside = enclosed(region.points, 12, 60)
    assert region.pixels == inside.sum() > 0
    assert not (inside & ~mask[0]).any()


@pytest.mark.parametrize("size", [(1, 1), (2, 3)])
def test_whole_image(size):
    """A segment that fills the image is outlined by the image's frame and claims all of it."""
    region = key_region(np.ones((1, *size), bool), (0,))
    assert region.pixels == size[0] * size[1]
