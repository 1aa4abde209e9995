"""On which side a segment is: in the segmentation where the standard wants it, the same in the reports, and held by the gate."""

import pytest

from gateway.domain.errors import GateRefused
from tests.conformance.conftest import run
from tests.support.result_set import AXIAL, SEGMENTS, Case, code, manifest, result_set, written
from workers.encode.conclusion import conclude
from workers.infer.answer import Answer

LEFT = code("7771000", "SCT", "Left")
KIDNEY = {
    "number": 1,
    "label": "Left kidney",
    "category": code("123037004", "SCT", "Anatomical Structure"),
    "type": code("64033007", "SCT", "Kidney"),
    "laterality": LEFT,
    "cielab": (54.0, 40.0, 35.0),
}


def kidney(directory, **attributes):
    """A set about a segment that is the left kidney."""
    output = manifest().model_dump(mode="json")["output"] | {"segments": [KIDNEY]}
    case = Case(affine=AXIAL, attributes=attributes, roles=("seg", "sr", "sr-data", "seg-labelmap"))
    return result_set(directory, case, output=output)


def test_images_say_the_side_of_a_region():
    """Laterality R: the region of the mass is on the right; the liver has no region, and so no side."""
    liver, mass = written("sagittal").read("seg").SegmentSequence
    assert mass.AnatomicRegionSequence[0].AnatomicRegionModifierSequence[0].CodeValue == "24028007"
    assert "SegmentedPropertyTypeModifierCodeSequence" not in liver.SegmentedPropertyTypeCodeSequence[0]
    report = str(written("sagittal").read("sr"))
    assert "24028007" in report


def test_manifest_states_the_side_of_a_structure(tmp_path):
    """The left kidney: a kidney, modified by left, whatever the images say; valid by dciodvfy, and read by the reports' readers."""
    found = kidney(tmp_path, Laterality="R")
    found.verify()
    (item,) = found.read("seg").SegmentSequence
    kind = item.SegmentedPropertyTypeCodeSequence[0]
    assert [one.CodeValue for one in kind.SegmentedPropertyTypeModifierCodeSequence] == ["7771000"]
    for path in found.paths():
        done = run("dciodvfy", "-new", path)
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("Error", "Warning"))]
        assert [line for line in lines if "DeviceUID" not in line] == []
    dump = run("dsrdump", "+U8", found.path("sr")).stdout
    assert '"Left"' in dump
    assert '"Laterality"' in dump


@pytest.mark.parametrize("side", ["24028007", None])
def test_gate_refuses_the_wrong_side(tmp_path, side):
    """Right instead of left, or no side at all."""
    found = kidney(tmp_path)

    def change(dataset):
        kind = dataset.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0]
        if side is None:
            del kind.SegmentedPropertyTypeModifierCodeSequence
        else:
            kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue = side

    with pytest.raises(GateRefused) as refusal:
        found.changed("seg", change).verify()
    assert refusal.value.code == "segment_code"


def test_gate_refuses_another_region(tmp_path):
    """The region is the manifest's."""
    assert "anatomic_region" in SEGMENTS[1]
    found = result_set(tmp_path, Case(affine=AXIAL, segments=2, roles=("seg", "sr")))

    def change(dataset):
        dataset.SegmentSequence[1].AnatomicRegionSequence[0].CodeValue = "39607008"

    with pytest.raises(GateRefused) as refusal:
        found.changed("seg", change).verify()
    assert refusal.value.code == "segment_code"


@pytest.mark.parametrize(("shown", "told"), [("R", True), ("L", False), ("B", False), ("", False)])
def test_the_other_side_is_said(tmp_path, shown, told):
    """A model of the left kidney, given images that say they show the right side: whoever reads the result must know."""
    attributes = {"ImageLaterality": shown} if shown else {}
    found = kidney(tmp_path, **attributes)
    sentences = conclude(Answer(labels=found.labels), found.volume, found.manifest, "0" * 32).sentences
    expected = "The images say that they show the right side, the result the other: Left kidney."
    assert sentences == ((expected,) if told else ())
