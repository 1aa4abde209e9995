"""What the gate stops in answers that are not segmentations, in findings, and in the strict report."""

import copy
import dataclasses

import numpy as np
import pytest

from tests.support import answers
from tests.support.gate import ELSEWHERE, refusal
from tests.support.result_set import AXIAL, Case, result_set
from tests.unit.workers.verify.conftest import copied
from workers.infer.answer import Answer
from workers.load.volume import Companion

REPORTS = ("sr", "sr-data")


def _two(labels):
    labels[:] = 0
    labels[2:5, 5:12, 6:14] = 1
    labels[6:8, 20:24, 30:33] = 1


EMPTY = answers.nothing()
KINDS = {
    "boxes": (answers.DETECTION, {"answer": answers.detected(), "roles": REPORTS}),
    "study": (answers.PER_STUDY, {"answer": Answer(labels=EMPTY, numbers=(0.7, 0.1)), "roles": REPORTS}),
    "images": (
        answers.PER_IMAGE,
        {"answer": Answer(labels=EMPTY, each=tuple((i / 10, 0.3) for i in range(9))), "roles": REPORTS},
    ),
    "lesions": (answers.lesions(1), {"paint": _two, "roles": ("seg", "sr", "sr-data", "sr-strict")}),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A result set of each kind, made when it is first asked for."""
    sets = {}

    def of(kind):
        if kind not in sets:
            output, case = KINDS[kind]
            sets[kind] = result_set(tmp_path_factory.mktemp("kind"), Case(affine=AXIAL, **case), output=output)
            sets[kind].verify()
        return sets[kind]

    return of


def measured(name, index=0, **changes):
    """One measurement is not what it was."""

    def change(found):
        every = list(found.measurements)
        every[index] = dataclasses.replace(every[index], **changes)
        return dataclasses.replace(found, measurements=tuple(every))

    change.__name__ = name
    return change


def told(index=0, **changes):
    """A finding says something else of itself."""

    def change(found):
        every = list(found.findings)
        every[index] = dataclasses.replace(every[index], told=dataclasses.replace(every[index].told, **changes))
        return dataclasses.replace(found, findings=tuple(every))

    return change


def twin(found):
    """Two findings with one tracking UID."""
    return told(1, tracking_uid=found.findings[0].told.tracking_uid)(found)


def on_no_image(found):
    """A finding on a slice that is none."""
    return dataclasses.replace(found, findings=(dataclasses.replace(found.findings[0], slice=77), *found.findings[1:]))


def fewer_images(found):
    """A number for each image but one."""
    return dataclasses.replace(found, each=found.each[1:])


def not_the_largest(found):
    """Of all images another than the one with most."""
    return dataclasses.replace(found, measurements=(found.each[0], *found.measurements[1:]))


def another_patients_prior(found):
    """Images beside the others that are of somebody else."""
    header = copy.deepcopy(found.volume.first)
    header.PatientID = "SOMEBODY-ELSE"
    beside = Companion(name="flair", voxels=found.volume.voxels, headers=(header,))
    return dataclasses.replace(found, volume=dataclasses.replace(found.volume, companions=(beside,)))


OUTCOMES = [
    ("lesions", twin, "findings"),
    ("lesions", on_no_image, "findings"),
    ("lesions", told(sop_instance_uid=ELSEWHERE), "findings"),
    ("lesions", another_patients_prior, "mixed_images"),
    ("study", lambda found: dataclasses.replace(found, measurements=found.measurements[::-1]), "measurements"),
    ("study", measured("more than all", value=101.0), "measurements"),
    ("study", measured("no number", value=float("nan")), "measurements"),
    ("study", measured("absent above its threshold", verdict=()), "measurements"),
    ("images", fewer_images, "measurements"),
    ("images", not_the_largest, "measurements"),
    ("boxes", lambda found: dataclasses.replace(found, measurements=found.measurements[1:]), "measurements"),
    ("boxes", measured("one box too many", value=3.0), "measurements"),
    ("boxes", measured("another certainty", 2, value=12.0), "measurements"),
]


@pytest.mark.parametrize(("kind", "change", "code"), OUTCOMES)
def test_outcome_that_does_not_follow(made, kind, change, code):
    """Numbers and findings are held against what the model gave, before anything written is looked at."""
    assert refusal(change(made(kind))) == code


def groups(dataset):
    """Measurement groups."""
    container = next(c for c in dataset.ContentSequence if c.ConceptNameCodeSequence[0].CodeValue == "126010")
    return container.ContentSequence


def within(item, kind):
    """Content items of a value type, at any depth."""
    for child in item.get("ContentSequence", ()):
        if child.ValueType == kind:
            yield child
        yield from within(child, kind)


def each_place(change):
    """A change of every outline."""

    def spoil(dataset):
        for place in within(dataset, "SCOORD"):
            change(place)

    return spoil


def _same_tracking(dataset):
    first, second = (next(within(group, "UIDREF")) for group in groups(dataset)[:2])
    second.UID = first.UID


def _group_lost(dataset):
    del groups(dataset)[-1]


def _elsewhere(place):
    place.GraphicData = (np.array(place.GraphicData) * 0 + [0, 0, 1, 0, 1, 1, 0, 1, 0, 0]).tolist()


def _square(place):
    place.GraphicData = [0, 0, 3, 0, 3, 3, 0, 3, 0, 0]


def _open(place):
    place.GraphicData = list(place.GraphicData)[:-2]


def _no_image(place):
    place.ContentSequence = []


def _a_point(place):
    place.GraphicType, place.GraphicData = "POINT", [4.5, 4.5]


def _outlines_lost(dataset):
    for number in within(dataset, "NUM"):
        number.pop("ContentSequence", None)


def _area(dataset):
    for number in within(dataset, "NUM"):
        if number.ConceptNameCodeSequence[0].CodeValue == "42798000":
            value = number.MeasuredValueSequence[0]
            value.NumericValue, value.FloatingPointValue = "77.5", 77.5


def _area_lost(dataset):
    for group in groups(dataset):
        group.ContentSequence = [
            item for item in group.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue != "42798000"
        ]


def _another_finding(dataset):
    code = next(c for c in within(dataset, "CODE") if c.ConceptNameCodeSequence[0].CodeValue == "121071")
    code.ConceptCodeSequence[0].CodeValue = "399068003"


def _another_image(dataset):
    images = [
        i for i in within(groups(dataset)[0], "IMAGE") if i.ReferencedSOPSequence[0].get("ReferencedSOPInstanceUID")
    ]
    every = next(c for c in dataset.ContentSequence if c.ConceptNameCodeSequence[0].CodeValue == "111028")
    first = next(within(every, "IMAGE")).ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    for image in images:
        image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = first


def _another_number(dataset):
    value = next(within(dataset, "NUM")).MeasuredValueSequence[0]
    value.NumericValue, value.FloatingPointValue = "12", 12.0


REPORTED = [
    ("lesions", "sr", _same_tracking, "tracking"),
    ("lesions", "sr", _group_lost, "tracking"),
    ("lesions", "sr", each_place(_elsewhere), "outline"),
    ("lesions", "sr", each_place(_square), "outline"),
    ("lesions", "sr", each_place(_open), "outline"),
    ("lesions", "sr", each_place(_no_image), "no_outline"),
    ("lesions", "sr", each_place(_a_point), "no_outline"),
    ("lesions", "sr", _outlines_lost, "no_outline"),
    ("lesions", "sr", _area, "outline"),
    ("lesions", "sr", _area_lost, "outline"),
    ("lesions", "sr-strict", _area, "outline"),
    ("lesions", "sr-strict", each_place(_square), "outline"),
    ("lesions", "sr-data", _group_lost, "tracking"),
    ("lesions", "sr-data", each_place(_square), "outline"),
    ("boxes", "sr", each_place(_square), "outline"),
    ("study", "sr", _group_lost, "tracking"),
    ("study", "sr", _another_finding, "group"),
    ("study", "sr", _another_number, "numbers"),
    ("study", "sr", _outlines_lost, "no_outline"),
    ("images", "sr", _another_image, "no_outline"),
    ("images", "sr-data", _another_image, "no_outline"),
    ("images", "sr-data", _group_lost, "tracking"),
    ("images", "sr-data", _another_number, "numbers"),
]


@pytest.mark.parametrize(("kind", "role", "change", "code"), REPORTED)
def test_report_that_says_something_else(made, tmp_path, kind, role, change, code):
    """Each number on its own image, around just what was found, in a group about that."""
    assert refusal(copied(made(kind), tmp_path).changed(role, change)) == code


def _no_label(dataset):
    dataset.SegmentSequence[0].SegmentLabel = ""


def _no_segment(dataset):
    del dataset.PerFrameFunctionalGroupsSequence[-1].SegmentIdentificationSequence


def _garbage(dataset):
    dataset.PixelData = dataset.PixelData[:20]


def _two_mappings(dataset):
    group = dataset.SharedFunctionalGroupsSequence[0]
    group.RealWorldValueMappingSequence = [*group.RealWorldValueMappingSequence] * 2


@pytest.mark.parametrize(
    ("role", "change", "code"),
    [
        ("seg", _no_label, "segment_label"),
        ("seg", _no_segment, "pixels"),
        ("seg-labelmap", _garbage, "pixels"),
        ("pm", _two_mappings, "quantity"),
    ],
)
def test_spoiled_object(whole, role, change, code):
    """What a viewer could not show."""
    assert refusal(whole.changed(role, change)) == code


def test_result_in_the_place_of_an_image(good):
    """An archive would answer that it has it already, or take it for the image."""
    image = str(good.volume.first.SOPInstanceUID)

    def placed(**uids):
        objects = tuple(dataclasses.replace(one, **uids) if one.role == "sr-data" else one for one in good.objects)
        return dataclasses.replace(good, objects=objects)

    def take(dataset):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = image

    assert refusal(placed(sop_instance_uid=image).changed("sr-data", take)) == "uid_reused"


def test_result_in_the_series_of_the_images(good):
    """There it hides, or is measured on."""
    series = str(good.volume.first.SeriesInstanceUID)
    objects = tuple(
        dataclasses.replace(one, series_uid=series) if one.role == "sr-data" else one for one in good.objects
    )
    spoiled = dataclasses.replace(good, objects=objects)
    assert refusal(spoiled.changed("sr-data", lambda d: setattr(d, "SeriesInstanceUID", series))) == "uid_reused"
