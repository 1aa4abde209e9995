"""The gate lets right results through and stops every wrong one; public validators pass most of these."""

import copy
import dataclasses
import math

import numpy as np
import pytest

from gateway.domain.errors import GateRefused
from tests.support.gate import ELSEWHERE, refusal
from tests.support.result_set import AXIAL, CASES, Case, manifest, result_set, written


@pytest.mark.parametrize("name", CASES)
def test_right_results_pass(name):
    """Every geometry, with nothing found, with gaps and with missing slices."""
    written(name).verify()


# --- what anyone could get wrong in any object -------------------------------------------------------------------------


def each(keyword, value):
    """A change that sets one attribute of the dataset."""
    return lambda dataset: setattr(dataset, keyword, value)


IDENTITY = {
    "PatientID": "OTHER",
    "IssuerOfPatientID": "OTHER",
    "PatientName": "Wang^XiaoDong",  # a group lost
    "PatientBirthDate": "19700102",
    "PatientSex": "F",
    "StudyInstanceUID": ELSEWHERE,
    "AccessionNumber": "DEMO0002",
    "StudyID": "2",
    "StudyDate": "20260103",
}


@pytest.mark.parametrize(
    ("role", "keyword"), [*(("seg", keyword) for keyword in IDENTITY), ("sr", "PatientID"), ("sr-data", "StudyID")]
)
def test_another_patient_or_study(good, role, keyword):
    """One character of identity is enough."""
    assert refusal(good.changed(role, each(keyword, IDENTITY[keyword]))) == "identity"


def _mangled(dataset):
    dataset.SpecificCharacterSet = "GB18030"


def _other_sop_class(dataset):
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"


def _no_equipment(dataset):
    del dataset.ContributingEquipmentSequence


def _no_device_uid(dataset):
    del dataset.ContributingEquipmentSequence[0].DeviceUID


def _image_series(dataset):
    dataset.SeriesInstanceUID = ELSEWHERE


@pytest.mark.parametrize("role", ["seg", "sr", "sr-data"])
@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_mangled, "character_set"),
        (_other_sop_class, "sop_class"),
        (_no_equipment, "equipment"),
        (_no_device_uid, "equipment"),
        (_image_series, "series"),
        (each("SOPInstanceUID", ELSEWHERE), "sop_instance"),
    ],
)
def test_object_that_is_not_what_it_says(good, role, change, code):
    """Character set, class, equipment and the object's own UIDs."""
    assert refusal(good.changed(role, change)) == code


def test_file_changed_after_it_was_described(good):
    """One flipped bit on disk."""
    path = good.path("seg")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert refusal(good) == "digest"


def test_file_that_is_missing_or_no_dicom(good):
    """What cannot be read back does not leave."""
    good.path("sr").write_bytes(b"not DICOM")
    assert refusal(good) == "unreadable"
    good.path("sr").unlink()
    assert refusal(good) == "unreadable"


@pytest.mark.parametrize("role", ["seg", "sr"])
def test_result_set_without_segmentation_or_report(good, role):
    """Half a result is none."""
    kept = tuple(found for found in good.objects if found.role != role)
    assert refusal(dataclasses.replace(good, objects=kept)) == "result_set"


# --- segmentation ------------------------------------------------------------------------------------------------------


def frame(dataset, number=0):
    """A frame's description."""
    return dataset.PerFrameFunctionalGroupsSequence[number]


def source(dataset, number=0):
    """A frame's source image."""
    return frame(dataset, number).DerivationImageSequence[0].SourceImageSequence[0]


def _moved(dataset):
    place = frame(dataset).PlanePositionSequence[0]
    place.ImagePositionPatient = [*place.ImagePositionPatient[:2], float(place.ImagePositionPatient[2]) + 0.01]


def _no_derivation(dataset):
    frame(dataset).DerivationImageSequence = []


def _two_sources(dataset):
    sources = frame(dataset).DerivationImageSequence[0].SourceImageSequence
    sources.append(copy.deepcopy(source(dataset, 1)))


def _foreign_source(dataset):
    source(dataset).ReferencedSOPInstanceUID = ELSEWHERE


def _foreign_source_class(dataset):
    source(dataset).ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"


def _swapped_sources(dataset):
    first, second = source(dataset), source(dataset, 1)
    swapped = second.ReferencedSOPInstanceUID, first.ReferencedSOPInstanceUID
    first.ReferencedSOPInstanceUID, second.ReferencedSOPInstanceUID = swapped


def _swapped_slices(dataset):
    for keyword in ("DerivationImageSequence", "PlanePositionSequence"):
        first, second = (copy.deepcopy(frame(dataset, number)[keyword].value) for number in (0, 1))
        setattr(frame(dataset, 0), keyword, second)
        setattr(frame(dataset, 1), keyword, first)


def _turned(dataset):
    shared = dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    shared.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]


def _spaced(dataset):
    dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [1.2, 1.2]


def _spaced_frame_by_frame(dataset):
    """Valid by the standard, and a black page in OHIF."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        frame.PixelMeasuresSequence = shared.PixelMeasuresSequence
    del shared.PixelMeasuresSequence


def _transposed_spacing(dataset):
    dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [0.9, 1.2]


def _no_position(dataset):
    del frame(dataset).PlanePositionSequence


def _source_list(dataset):
    dataset.SourceImageSequence = [copy.deepcopy(source(dataset))]


def _flipped_pixel(dataset):
    data = bytearray(dataset.PixelData)
    data[100] ^= 1
    dataset.PixelData = bytes(data)


def _short_pixels(dataset):
    dataset.PixelData = dataset.PixelData[:-2]


def _renumbered_frame(dataset):
    frame(dataset).SegmentIdentificationSequence[0].ReferencedSegmentNumber = 2


def _lost_frame(dataset):
    size = dataset.Rows * dataset.Columns // 8
    del dataset.PerFrameFunctionalGroupsSequence[-1]
    dataset.NumberOfFrames -= 1
    dataset.PixelData = dataset.PixelData[: size * dataset.NumberOfFrames]


def _lost_description(dataset):
    del dataset.PerFrameFunctionalGroupsSequence[-1]


def _doubled_frame(dataset):
    size = dataset.Rows * dataset.Columns // 8
    dataset.PerFrameFunctionalGroupsSequence.append(copy.deepcopy(frame(dataset)))
    dataset.NumberOfFrames += 1
    dataset.PixelData += dataset.PixelData[:size]


def _no_colour(dataset):
    del dataset.SegmentSequence[1].RecommendedDisplayCIELabValue


def _other_colour(dataset):
    dataset.SegmentSequence[1].RecommendedDisplayCIELabValue = [0, 0, 0]


def _renumbered_segment(dataset):
    dataset.SegmentSequence[1].SegmentNumber = 3


def _lost_segment(dataset):
    del dataset.SegmentSequence[1]


def _swapped_codes(dataset):
    first, second = dataset.SegmentSequence
    codes = second.SegmentedPropertyTypeCodeSequence, first.SegmentedPropertyTypeCodeSequence
    first.SegmentedPropertyTypeCodeSequence, second.SegmentedPropertyTypeCodeSequence = map(copy.deepcopy, codes)


def _manual(dataset):
    dataset.SegmentSequence[0].SegmentAlgorithmType = "MANUAL"


def _no_algorithm(dataset):
    del dataset.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence


def _no_segment_tracking(dataset):
    del dataset.SegmentSequence[0].TrackingUID


def _same_segment_tracking(dataset):
    dataset.SegmentSequence[0].TrackingUID = dataset.SegmentSequence[1].TrackingUID


def _no_series(dataset):
    del dataset.ReferencedSeriesSequence


def _foreign_series(dataset):
    dataset.ReferencedSeriesSequence[0].SeriesInstanceUID = ELSEWHERE


SPOILED_SEG = {
    "moved by a hundredth of a millimetre": (_moved, "position"),
    "no position": (_no_position, "position"),
    "no derivation image": (_no_derivation, "no_source"),
    "two sources for a frame": (_two_sources, "no_source"),
    "source that is not in the input": (_foreign_source, "unknown_reference"),
    "source with another class": (_foreign_source_class, "unknown_reference"),
    "sources of two frames exchanged": (_swapped_sources, "position"),
    "two frames exchanged": (_swapped_slices, "pixels"),
    "turned": (_turned, "orientation"),
    "other spacing": (_spaced, "spacing"),
    "spacing of each frame": (_spaced_frame_by_frame, "spacing"),
    "spacing of rows and columns exchanged": (_transposed_spacing, "spacing"),
    "other frame of reference": (each("FrameOfReferenceUID", ELSEWHERE), "frame_of_reference"),
    "other matrix": (each("Rows", 48), "matrix"),
    "source list at the top": (_source_list, "source_list"),
    "one pixel changed": (_flipped_pixel, "pixels"),
    "pixel data too short": (_short_pixels, "pixels"),
    "frame of another segment": (_renumbered_frame, "pixels"),
    "frame lost": (_lost_frame, "pixels"),
    "frame described by nobody": (_lost_description, "frames"),
    "frame twice": (_doubled_frame, "pixels"),
    "no colour": (_no_colour, "segment_colour"),
    "other colour": (_other_colour, "segment_colour"),
    "segments not consecutive": (_renumbered_segment, "segment_number"),
    "segment lost": (_lost_segment, "segment_number"),
    "codes of segments exchanged": (_swapped_codes, "segment_code"),
    "said to be drawn by hand": (_manual, "segment_algorithm"),
    "no algorithm": (_no_algorithm, "segment_algorithm"),
    "no tracking UID": (_no_segment_tracking, "segment_tracking"),
    "same tracking UID twice": (_same_segment_tracking, "segment_tracking"),
    "no referenced series": (_no_series, "no_series"),
    "foreign referenced series": (_foreign_series, "unknown_series"),
    "fractional": (each("SegmentationType", "FRACTIONAL"), "form"),
}


@pytest.mark.parametrize("name", SPOILED_SEG)
def test_spoiled_segmentation(good, name):
    """A mask on the wrong place, of the wrong shape, or without its description never leaves."""
    change, code = SPOILED_SEG[name]
    assert refusal(good.changed("seg", change)) == code


# --- reports -----------------------------------------------------------------------------------------------------------


def items(item, meaning):
    """Content items below this one, at any depth, of a concept name."""
    for child in item.get("ContentSequence", ()):
        if child.ConceptNameCodeSequence[0].CodeMeaning == meaning:
            yield child
        yield from items(child, meaning)


def first(dataset, meaning):
    """The first of them."""
    return next(items(dataset, meaning))


def _remove(meaning):
    def change(dataset):
        def prune(item):
            if "ContentSequence" in item:
                kept = [c for c in item.ContentSequence if c.ConceptNameCodeSequence[0].CodeMeaning != meaning]
                item.ContentSequence = kept
                for child in kept:
                    prune(child)

        prune(dataset)

    return change


def _no_template(dataset):
    del dataset.ContentTemplateSequence


def _other_title(dataset):
    dataset.ConceptNameCodeSequence[0].CodeValue = "126001"


def _other_tracking(dataset):
    first(dataset, "Tracking Unique Identifier").UID = ELSEWHERE


def _swapped_tracking(dataset):
    one, two = items(dataset, "Tracking Unique Identifier")
    one.UID, two.UID = two.UID, one.UID


def _wrong_volume(dataset):
    measured = first(dataset, "Volume").MeasuredValueSequence[0]
    measured.NumericValue = "1.5"
    measured.FloatingPointValue = 1.5


def _two_values(dataset):
    first(dataset, "Volume").MeasuredValueSequence[0].NumericValue = "1.5"


def _wrong_unit(dataset):
    first(dataset, "Volume").MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue = "mm3"


def _extra_number(dataset):
    group = first(dataset, "Measurement Group")
    group.ContentSequence.append(copy.deepcopy(first(group, "Volume")))


def _foreign_evidence(dataset):
    dataset.CurrentRequestedProcedureEvidenceSequence[0].StudyInstanceUID = ELSEWHERE


def _wrong_series_evidence(dataset):
    dataset.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].SeriesInstanceUID = ELSEWHERE


def _missing_evidence(dataset):
    series = dataset.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    del series.ReferencedSOPSequence[0]


def _foreign_image(dataset):
    first(dataset, "Image Library Group").ContentSequence[0].ReferencedSOPSequence[
        0
    ].ReferencedSOPInstanceUID = ELSEWHERE


SPOILED_REPORT = {
    "no content template": (_no_template, "template"),
    "another title": (_other_title, "template"),
    "final": (each("PreliminaryFlag", "FINAL"), "status"),
    "verified": (each("VerificationFlag", "VERIFIED"), "status"),
    "no device": (_remove("Device Observer UID"), "context"),
    "no procedure": (_remove("Procedure reported"), "context"),
    "no tracking UID": (_remove("Tracking Unique Identifier"), "tracking"),
    "no tracking identifier": (_remove("Tracking Identifier"), "tracking"),
    "foreign tracking UID": (_other_tracking, "tracking"),
    "tracking UIDs exchanged": (_swapped_tracking, "numbers"),
    "no measurements": (_remove("Imaging Measurements"), "tracking"),
    "no finding": (_remove("Finding"), "group"),
    "no algorithm": (_remove("Algorithm Name"), "group"),
    "wrong volume": (_wrong_volume, "numbers"),
    "two values that differ": (_two_values, "numbers"),
    "wrong unit": (_wrong_unit, "numbers"),
    "volume lost": (_remove("Volume"), "numbers"),
    "number nobody measured": (_extra_number, "numbers"),
    "evidence of another study": (_foreign_evidence, "unknown_study"),
    "evidence of another series": (_wrong_series_evidence, "unknown_series"),
    "reference without evidence": (_missing_evidence, "no_evidence"),
    "image that is not in the input": (_foreign_image, "unknown_reference"),
}


IN_BOTH = ("no content template", "foreign tracking UID", "wrong volume", "volume lost", "reference without evidence")


@pytest.mark.parametrize(
    ("role", "name"), [*(("sr", name) for name in SPOILED_REPORT), *(("sr-data", name) for name in IN_BOTH)]
)
def test_spoiled_report(good, role, name):
    """A number that was not measured, on another patient's image, or that claims to be final never leaves."""
    change, code = SPOILED_REPORT[name]
    assert refusal(good.changed(role, change)) == code


def _no_coordinates(dataset):
    del first(dataset, "Volume").ContentSequence


def _open_outline(dataset):
    outline = first(dataset, "Volume").ContentSequence[0]
    outline.GraphicData = list(outline.GraphicData)[:-2]


def _shifted_outline(dataset):
    outline = first(dataset, "Volume").ContentSequence[0]
    outline.GraphicData = [value + 1 for value in outline.GraphicData]


def _other_slice(dataset):
    images = first(dataset, "Image Library Group").ContentSequence
    for number in (*items(dataset, "Volume"), *items(dataset, "Area")):
        target = number.ContentSequence[0].ContentSequence[0].ReferencedSOPSequence[0]
        target.ReferencedSOPInstanceUID = images[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID


def _wrong_area(dataset):
    measured = first(dataset, "Area").MeasuredValueSequence[0]
    measured.NumericValue, measured.FloatingPointValue = "1.5", 1.5


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_no_coordinates, "no_outline"),
        (_open_outline, "outline"),
        (_shifted_outline, "outline"),
        (_other_slice, "outline"),
        (_wrong_area, "outline"),
        (_remove("Area"), "outline"),
    ],
)
def test_outline_that_is_not_on_its_segment(good, change, code):
    """What people are shown lies on the mask, and every number can be opened."""
    assert refusal(good.changed("sr", change)) == code


def test_data_report_on_another_segment(good):
    """Volume of the one, reference to the other."""

    def change(dataset):
        first(dataset, "Referenced Segment").ReferencedSOPSequence[0].ReferencedSegmentNumber = 2

    assert refusal(good.changed("sr-data", change)) == "segment_reference"


# --- input and numbers -------------------------------------------------------------------------------------------------


def test_labels_that_are_not_what_was_written(good):
    """One voxel more or less than the objects and numbers say."""
    labels = good.labels.copy()
    labels[tuple(np.argwhere(labels == 1)[0])] = 0
    assert refusal(dataclasses.replace(good, labels=labels)) == "measurements"


def test_mask_moved_by_one_voxel(good):
    """The same volume beside its place."""
    assert refusal(dataclasses.replace(good, labels=np.roll(good.labels, 1, axis=2))) == "pixels"


@pytest.mark.parametrize("value", [1.5, math.nan, math.inf])
def test_number_that_does_not_follow_from_the_labels(good, value):
    """Measurements are counted again."""
    measured = (dataclasses.replace(good.measurements[0], value=value), *good.measurements[1:])
    assert refusal(dataclasses.replace(good, measurements=measured)) == "measurements"


def test_measurement_left_out(good):
    """Every number that the manifest asks for is there."""
    assert refusal(dataclasses.replace(good, measurements=good.measurements[:1])) == "measurements"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_stack_upside_down_or_mirrored(good, axis):
    """An affine that runs against the images: every voxel would be somewhere else."""
    turn = np.eye(4)
    turn[axis, axis], turn[axis, 3] = -1, good.labels.shape[axis] - 1
    volume = dataclasses.replace(good.volume, affine=good.volume.affine @ turn)
    assert refusal(dataclasses.replace(good, volume=volume)) == "stack"


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"])
def test_images_of_two_patients(good, keyword):
    """One foreign image among the slices."""
    headers = list(copy.deepcopy(good.volume.headers))
    setattr(headers[3], keyword, ELSEWHERE)
    volume = dataclasses.replace(good.volume, headers=tuple(headers))
    assert refusal(dataclasses.replace(good, volume=volume)) == "mixed_images"


def test_image_that_the_job_was_not_given(good):
    """Only instances of the order count as input."""
    inputs = tuple(f for f in good.order.inputs if f.sop_instance_uid != good.volume.headers[3].SOPInstanceUID)
    order = dataclasses.replace(good.order, inputs=inputs)
    assert refusal(dataclasses.replace(good, order=order)) == "unknown_reference"


def test_implausible_volume(good):
    """The sentence has the number, the unit and the range, and what it may mean."""
    contract = manifest(2, plausible=(900, 2000))
    with pytest.raises(GateRefused) as caught:
        dataclasses.replace(good, manifest=contract).verify()
    assert caught.value.code == "implausible"
    shown = f"{good.measurements[0].value:.6g} mL"
    assert f"Liver: Volume is {shown}, outside the plausible range of 900 to 2000 mL" in caught.value.message
    assert "out of scope" in caught.value.message


def test_plausible_volume(good):
    """The ends of the range are inside it."""
    values = [m.value for m in good.measurements]
    dataclasses.replace(good, manifest=manifest(2, plausible=(min(values), max(values)))).verify()


def test_rounding_in_the_images_is_no_fault(tmp_path):
    """Scanners round each image's orientation and spacing on their own; what the loader takes as one series passes."""

    def jitter(index, dataset):
        dataset.ImageOrientationPatient = [1, 0.0002 * (index % 2), 0, -0.0002 * (index % 2), 1, 0]
        dataset.PixelSpacing = [1.2 + 0.0004 * (index % 2), 0.9]

    result_set(tmp_path, Case(affine=AXIAL), change=jitter).verify()
