"""Detections, lesions and answers about single images: each its own group, its own outline, its own numbers, past the gate."""

import dataclasses
import itertools
import shutil

import numpy as np
import pytest

from gateway.domain.roles import ROLES
from tests.support import answers
from tests.support.gate import refusal
from tests.support.result_set import AXIAL, SHAPE, Case, frame, result_set
from workers.infer.answer import Answer

REPORTS = ("sr", "sr-strict", "sr-data")
KINDS = {
    "boxes": (answers.DETECTION, answers.detected()),
    "no boxes": (answers.DETECTION, Answer(labels=answers.nothing())),
    "boxes on images": (answers.DETECTION_2D, answers.detected(planar=True)),
    "study": (answers.PER_STUDY, Answer(labels=answers.nothing(), numbers=(0.7, 0.1))),
    "images": (answers.PER_IMAGE, Answer(labels=answers.nothing(), each=tuple((i / 10, 0.3) for i in range(9)))),
}


def speckled(labels):
    """Three lesions of 64, 8 and 8 voxels, and a single voxel."""
    labels[:] = 0
    for start, size in (((1, 5, 6), 4), ((6, 30, 30), 2), ((2, 20, 40), 2), ((4, 35, 5), 1)):
        labels[tuple(slice(at, at + size) for at in start)] = 1


LESIONS = (answers.lesions(1, smallest=10.0, most=2), Case(affine=AXIAL, paint=speckled, roles=("seg", *REPORTS)))


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A result set of every kind."""
    found = {}
    for name, (output, answer) in KINDS.items():
        case = Case(affine=AXIAL, answer=answer, roles=ROLES if name == "boxes" else REPORTS)
        found[name] = result_set(tmp_path_factory.mktemp("kind"), case, output=output)
    output, case = LESIONS
    found["lesions"] = result_set(tmp_path_factory.mktemp("kind"), case, output=output)
    return found


@pytest.fixture
def spoilable(sets, tmp_path):
    """A copy that a test may change."""

    def copied(name):
        found = sets[name]
        shutil.copytree(found.order.output_dir, tmp_path / name)
        return dataclasses.replace(found, order=dataclasses.replace(found.order, output_dir=str(tmp_path / name)))

    return copied


def groups(dataset):
    """Measurement groups as {name of an item: its items}."""
    container = next(item for item in dataset.ContentSequence if _name(item) == "Imaging Measurements")
    found = []
    for group in container.ContentSequence:
        named = {}
        for item in group.ContentSequence:
            named.setdefault(_name(item), []).append(item)
        found.append(named)
    return found


def _name(item):
    return item.ConceptNameCodeSequence[0].CodeMeaning


def _value(item):
    return float(item.MeasuredValueSequence[0].NumericValue)


@pytest.mark.parametrize("name", [*KINDS, "lesions"])
def test_every_kind_passes_the_gate(sets, name):
    """Whatever a model answers, the set is whole and right."""
    sets[name].verify()
    assert {"sr", "sr-strict"} <= {one.role for one in sets[name].objects}


def test_a_box_is_an_editable_rectangle(sets):
    """Tracking, finding, site and side, certainty and extents, on the slice in the middle of the box."""
    first, second, *totals = groups(sets["boxes"].read("sr"))
    assert first["Tracking Identifier"][0].TextValue == "Cornerstone3DTools@^0.1.0:RectangleROI:Nodule 1"
    assert sets["boxes"].findings[0].told.tracking_uid == first["Tracking Unique Identifier"][0].UID
    site = first["Finding Site"][0]
    assert site.ConceptCodeSequence[0].CodeMeaning == "Lung"
    assert site.ContentSequence[0].ConceptCodeSequence[0].CodeMeaning == "Left"
    assert _value(first["Certainty of Finding"][0]) == pytest.approx(93)
    # Rows 8 to 20, columns 14.4 to 26.4, slices 1 to 4; 1.2, 0.9 and 3 mm.
    sizes = [_value(first[name][0]) for name in ("Height", "Width", "Depth", "Area")]
    assert sizes == pytest.approx([12 * 1.2, 12 * 0.9, 9, 12 * 12 * 1.2 * 0.9], rel=1e-5)
    place = first["Certainty of Finding"][0].ContentSequence[0]
    assert list(place.GraphicData) == pytest.approx([14.9, 8.5, 26.9, 8.5, 26.9, 20.5, 14.9, 20.5, 14.9, 8.5])
    image = place.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert image == sets["boxes"].volume.headers[2].SOPInstanceUID
    assert [_value(total["Quantity"][0]) for total in totals] == [2, 0]
    assert second["Tracking Identifier"][0].TextValue.endswith("Nodule 2")


def test_a_box_is_six_sides_in_the_data(sets):
    """SCOORD3D in the images' frame of reference: eight corners in the patient's millimetres."""
    first = groups(sets["boxes"].read("sr-data"))[0]
    sides = [item for items in first.values() for item in items if item.ValueType == "SCOORD3D"]
    assert len(sides) == 6
    corners = {tuple(np.round(point, 2)) for side in sides for point in np.reshape(side.GraphicData, (-1, 3))}
    assert corners == {tuple(np.round(corner, 2)) for corner in sets["boxes"].findings[0].box.corners}


def test_nothing_found_is_a_number(sets):
    """No box: 0 of each class, a sentence each, and no finding."""
    found = sets["no boxes"]
    dataset = found.read("sr")
    assert [_value(group["Quantity"][0]) for group in groups(dataset)] == [0, 0]
    said = [element.value for element in dataset.iterall() if element.keyword == "TextValue"]
    assert {"Nothing found: Nodule.", "Nothing found: Pleural effusion."} <= set(said)


def test_each_lesion_is_measured(sets):
    """The two largest, each in a group of its own in both reports; the third is counted, the speck is not."""
    found = sets["lesions"]
    assert [(one.told.label, one.told.sub_id) for one in found.findings] == [("Liver 1", "1.1"), ("Liver 2", "1.2")]
    count, *each = found.measurements
    assert count.value == 3
    assert each[0].value == pytest.approx(64 * 3 * 1.2 * 0.9 / 1000)
    assert each[1].value == pytest.approx(np.hypot(4 * 1.2, 4 * 0.9))
    for role in ("sr", "sr-data"):
        uids = [group["Tracking Unique Identifier"][0].UID for group in groups(found.read(role))]
        assert uids[1:] == [one.told.tracking_uid for one in found.findings]
    regions = [
        item for items in groups(found.read("sr-data"))[1].values() for item in items if item.ValueType == "SCOORD"
    ]
    assert len(regions) == 4


def test_what_is_not_listed_is_said(tmp_path):
    """Lesions beyond the limit and parts below it."""
    from workers.encode.findings import lesions_of

    output, case = LESIONS
    base = result_set(tmp_path, dataclasses.replace(case, roles=("seg",)), output=output)
    sentences = lesions_of(base.labels, base.volume, base.manifest, "0").sentences
    assert sentences == (
        "Liver: 1 parts smaller than 10 mm3 are not counted as lesions.",
        "Liver: 1 more lesions, 0.0259 mL together, are counted, but not reported one by one.",
    )


def test_single_images(sets):
    """The report for people has the image that shows most; the one for programs has the number of each."""
    found = sets["images"]
    first = groups(found.read("sr"))[0]
    assert _value(first["Certainty of Finding"][0]) == pytest.approx(80)
    assert first["Presence of property"][0].ConceptCodeSequence[0].CodeMeaning == "Present"
    target = first["Certainty of Finding"][0].ContentSequence[0].ContentSequence[0].ReferencedSOPSequence[0]
    assert target.ReferencedSOPInstanceUID == found.volume.headers[8].SOPInstanceUID
    each = groups(found.read("sr-data"))[0]["Certainty of Finding"]
    images = [item.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in each]
    assert images == [header.SOPInstanceUID for header in found.volume.headers]
    assert [_value(item) for item in each] == pytest.approx([10 * i for i in range(9)])


def _moved(dataset):
    for item in groups(dataset)[0]["Certainty of Finding"]:
        item.ContentSequence[0].GraphicData = [value + 3 for value in item.ContentSequence[0].GraphicData]


def _outside(dataset):
    for items in groups(dataset)[0].values():
        for item in items:
            if item.ValueType == "NUM":
                points = list(item.ContentSequence[0].GraphicData)
                item.ContentSequence[0].GraphicData = [points[0] - 90, *points[1:-2], points[-2] - 90, points[-1]]


def _surer(dataset):
    measured = groups(dataset)[0]["Certainty of Finding"][0].MeasuredValueSequence[0]
    measured.NumericValue, measured.FloatingPointValue = "99", 99.0


def _elsewhere(dataset):
    for items in groups(dataset)[0].values():
        for item in items:
            if item.ValueType == "SCOORD3D":
                item.GraphicData = [value + 5 for value in item.GraphicData]


def _without_side(dataset):
    del groups(dataset)[0]["Finding Site"][0].ConceptCodeSequence[0].CodeValue


def _other_slice(dataset):
    groups_ = groups(dataset)
    first = groups_[0]["Certainty of Finding"][0].ContentSequence[0].ContentSequence[0].ReferencedSOPSequence[0]
    first.ReferencedSOPInstanceUID = (
        groups_[1]["Certainty of Finding"][0]
        .ContentSequence[0]
        .ContentSequence[0]
        .ReferencedSOPSequence[0]
        .ReferencedSOPInstanceUID
    )


def _lost_region(dataset):
    container = next(item for item in dataset.ContentSequence if _name(item) == "Imaging Measurements")
    group = container.ContentSequence[-1]
    index = next(i for i, item in enumerate(group.ContentSequence) if item.ValueType == "SCOORD")
    del group.ContentSequence[index]


def _absent(dataset):
    groups(dataset)[0]["Presence of property"][0].ConceptCodeSequence[0].CodeValue = "2667000"


@pytest.mark.parametrize(
    ("name", "role", "change", "code"),
    [
        ("boxes", "sr", _moved, "outline"),
        ("boxes", "sr", _outside, "outline"),
        ("boxes", "sr", _surer, "numbers"),
        ("boxes", "sr", _without_side, "group"),
        ("boxes", "sr", _other_slice, "outline"),
        ("boxes", "sr-data", _elsewhere, "outline"),
        ("lesions", "sr-data", _lost_region, "outline"),
        ("images", "sr", _absent, "numbers"),
    ],
)
def test_spoiled_reports(spoilable, name, role, change, code):
    """Outlines beside the thing or off the image, another certainty, side, slice, extent or verdict."""
    assert refusal(spoilable(name).changed(role, change)) == code


def test_findings_that_are_not_the_labels(sets):
    """The gate cuts lesions out itself, and knows where boxes may lie."""
    found = sets["lesions"]
    swapped = dataclasses.replace(found, findings=(found.findings[0],))
    assert refusal(swapped) == "findings"
    boxes = sets["boxes"]
    away = dataclasses.replace(boxes.findings[0].box, corner=boxes.findings[0].box.corner + 500)
    first = dataclasses.replace(boxes.findings[0], box=away)
    assert refusal(dataclasses.replace(boxes, findings=(first, *boxes.findings[1:]))) == "box"


def test_the_same_answer_gives_the_same_findings(sets, tmp_path):
    """Numbers and tracking UIDs follow from the job and the answer."""
    output, case = LESIONS
    again = result_set(tmp_path, dataclasses.replace(case, roles=("seg",)), output=output)
    assert [one.told.tracking_uid for one in again.findings] == [
        one.told.tracking_uid for one in sets["lesions"].findings
    ]
    assert again.labels.shape == SHAPE


def scattered(labels):
    """Thirty parts of six voxels each, differently spread over their slices."""
    labels[:] = 0
    for number, (row, column) in enumerate(itertools.product(range(0, 30, 6), range(0, 36, 6))):
        spread = ((1, 2, 3), (3, 2, 1), (2, 2, 2), (5, 1, 0))[number % 4]
        for index, wide in enumerate(spread):
            labels[1 + number % 5 + index, row, column : column + wide] = 1


@pytest.mark.parametrize("smallest", [0.0, 6 * 1.37 * 0.713 * 0.713])
def test_lesions_of_one_size(tmp_path, smallest):
    """Sums of as many voxels differ in their last digit; that neither holds a result back nor drops a lesion."""
    affine = frame((1, 0, 0), (0, 1, 0), spacing=(1.37, 0.713, 0.713))
    case = Case(affine=affine, paint=scattered, roles=("seg", "sr", "sr-data"))
    for least in (smallest, np.nextafter(smallest, 100)):
        found = result_set(tmp_path / f"{least!r}", case, output=answers.lesions(1, smallest=float(least), most=40))
        found.verify()
        assert len(found.findings) == 30
        assert found.measurements[0].value == 30


def test_smaller_lesion_before_a_larger(sets, spoilable):
    """What is left out must not be larger than what is told."""
    found = spoilable("lesions")
    cut = found.findings[1]
    single = dataclasses.replace(
        cut, part=dataclasses.replace(cut.part, start=(4, 35, 5), mask=np.ones((1, 1, 1), bool))
    )
    assert refusal(dataclasses.replace(found, findings=(found.findings[0], single))) == "findings"
    assert refusal(dataclasses.replace(found, findings=(found.findings[0], found.findings[0]))) == "findings"
