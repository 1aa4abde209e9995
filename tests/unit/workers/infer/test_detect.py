"""Boxes of a model, in whatever way it writes them, lie around the same things in the patient."""

import dataclasses

import numpy as np
import pytest

from gateway.domain.errors import ModelOutputInvalid
from tests.support.answers import DETECTION, DETECTION_2D
from tests.support.detector import write_detector
from tests.support.result_set import AXIAL, frame, oblique
from workers.encode.section import reach
from workers.infer.detect import detect
from workers.infer.model import open_model
from workers.load.volume import Volume

SHAPE = (8, 20, 24)
SMALL, LARGE = np.s_[2:4, 3:6, 4:8], np.s_[4:8, 8:18, 10:20]
REVERSED = frame((-1, 0, 0), (0, 0, -1))


def volume(affine):
    """A small bright block and a large one that is brighter."""
    voxels = np.zeros(SHAPE, np.float32)
    voxels[SMALL], voxels[LARGE] = 0.8, 1.0
    return Volume(voxels=voxels, affine=affine, headers=(None,) * len(voxels))


def opened(directory, output, boxes, orientation=""):
    """The detector with these ways of writing boxes."""
    return open_model(write_detector(directory, output | {"boxes": output["boxes"] | boxes}, orientation=orientation))


def extents(box, affine):
    """Lowest and highest index of a box, (6,)."""
    corners = reach(box, affine)
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)])


@pytest.mark.parametrize(
    ("boxes", "orientation"),
    [
        ({"mode": "xyzxyz"}, ""),
        ({"mode": "cccwhd"}, "RAS"),
        ({"mode": "xyxyzz", "coordinates": "ras"}, "RAS"),
        ({"mode": "xxyyzz", "coordinates": "lps"}, "LPI"),
    ],
)
@pytest.mark.parametrize("affine", [AXIAL, REVERSED], ids=["axial", "reversed"])
def test_every_way_to_write_a_box(tmp_path, boxes, orientation, affine):
    """Modes, orders of axes and worlds: two boxes, the better first, the doubles gone."""
    found = detect(opened(tmp_path, DETECTION, boxes, orientation), volume(affine))
    assert [(box.label, round(box.score, 3)) for box in found] == [(1, 1.0), (0, 0.8)]
    assert np.allclose(extents(found[0], affine), [3.5, 7.5, 9.5, 7.5, 17.5, 19.5], atol=1e-3)
    assert np.allclose(extents(found[1], affine), [1.5, 2.5, 3.5, 3.5, 5.5, 7.5], atol=1e-3)


def test_boxes_of_an_oblique_stack(tmp_path):
    """In the index of a turned stack boxes are turned with it."""
    found = detect(opened(tmp_path, DETECTION, {}), volume(oblique()))
    assert np.allclose(extents(found[0], oblique()), [3.5, 7.5, 9.5, 7.5, 17.5, 19.5], atol=1e-3)


def test_whole_numbers_can_be_edges(tmp_path):
    """Boxes made of masks begin where their first voxel begins."""
    found = detect(opened(tmp_path, DETECTION, {"whole_numbers": "edges"}), volume(AXIAL))
    assert np.allclose(extents(found[1], AXIAL), [1, 2, 3, 3, 5, 7], atol=1e-3)


def test_boxes_on_single_images(tmp_path):
    """One image after the other, also when preprocessing turns the stack upside down; each box names its slice."""
    reversed_stack = frame((1, 0, 0), (0, 1, 0), (0, 0, -1))
    found = detect(opened(tmp_path, DETECTION_2D, {"mode": "ccwh"}), volume(reversed_stack))
    assert sorted(box.slice for box in found) == [2, 3, 4, 5, 6, 7]
    for box in found:
        assert np.isclose(extents(box, reversed_stack)[0], box.slice - 0.5)
        expected = [2.5, 3.5, 5.5, 7.5] if box.slice < 4 else [7.5, 9.5, 17.5, 19.5]
        assert np.allclose(extents(box, reversed_stack)[[1, 2, 4, 5]], expected, atol=1e-3)


def test_thresholds(tmp_path):
    """Below the score of its class a box is none; nothing found is an answer."""
    findings = [DETECTION["findings"][0] | {"threshold": 0.85}, DETECTION["findings"][1]]
    found = detect(opened(tmp_path / "a", DETECTION | {"findings": findings}, {}), volume(AXIAL))
    assert [box.label for box in found] == [1]
    dark = dataclasses.replace(volume(AXIAL), voxels=np.zeros(SHAPE, np.float32))
    assert detect(opened(tmp_path / "b", DETECTION, {}), dark) == ()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        ("found[:, 0] = float('nan')", "output_not_finite"),
        ("found[:, 0] = 99", "output_values"),
        ("found += 500", "output_boxes"),
        ("score = score + 1", "output_values"),
        ("found = found[:0]", "output_shape"),
        ("label = torch.full((len(found),), 7)", "output_values"),
    ],
)
def test_boxes_that_cannot_be(tmp_path, spoil, code):
    """Not a number, inside out, elsewhere, no probability, not one label each, of no known class."""
    bundle = write_detector(tmp_path, DETECTION)
    network = (bundle / "scripts/network.py").read_text()
    where = "        label = (size > 300).long()\n"
    spoilt = f"{where}        {spoil}\n        twice = torch.cat([found, found])\n"
    (bundle / "scripts/network.py").write_text(network.replace(where, spoilt))
    with pytest.raises(ModelOutputInvalid) as caught:
        detect(open_model(bundle), volume(AXIAL))
    assert caught.value.code == code


def test_coordinates_of_another_convention_are_noticed(tmp_path):
    """RAS taken for LPS puts boxes outside of a head that is off the middle."""
    affine = frame((1, 0, 0), (0, 1, 0), origin=(60, 40, 0))
    model = opened(tmp_path, DETECTION, {"coordinates": "ras"})
    wrong = dataclasses.replace(
        model,
        manifest=model.manifest.model_copy(
            update={
                "output": model.manifest.output.model_copy(
                    update={"boxes": model.manifest.output.boxes.model_copy(update={"coordinates": "lps"})}
                )
            }
        ),
    )
    with pytest.raises(ModelOutputInvalid, match="coordinates"):
        detect(wrong, volume(affine))
