"""Reports say what was measured, where to look, by what, and that nobody has verified it."""

import dataclasses

import numpy as np
import pytest

from tests.support.result_set import CASES, IDENTITY, written
from workers.encode.objects import encode


def items(item, meaning):
    """Content items below this one, at any depth, of a concept name."""
    for child in item.get("ContentSequence", ()):
        if child.ConceptNameCodeSequence[0].CodeMeaning == meaning:
            yield child
        yield from items(child, meaning)


def value(item):
    """Value and unit of a NUM item."""
    measured = item.MeasuredValueSequence[0]
    return float(measured.NumericValue), measured.MeasurementUnitsCodeSequence[0].CodeValue


@pytest.mark.parametrize("role", ["sr", "sr-data"])
@pytest.mark.parametrize("name", CASES)
def test_every_volume_is_in_both_reports(name, role):
    """As measured, in mL, one for each segment, 0 included."""
    found = written(name)
    volumes = [value(item) for item in items(found.read(role), "Volume")]
    assert volumes == [(pytest.approx(m.value, rel=1e-8), "mL") for m in found.measurements]


@pytest.mark.parametrize("name", CASES)
def test_every_number_stands_on_an_outline_on_an_image(name):
    """One closed polyline under each number, on an image of the series: what OHIF can open."""
    found = written(name)
    images = {str(h.SOPInstanceUID) for h in found.volume.headers if h is not None}
    for group in items(found.read("sr"), "Measurement Group"):
        for number in (item for item in group.ContentSequence if item.ValueType == "NUM"):
            (outline,) = number.ContentSequence
            assert (outline.ValueType, outline.GraphicType) == ("SCOORD", "POLYLINE")
            assert outline.GraphicData[:2] == outline.GraphicData[-2:]
            (image,) = outline.ContentSequence
            assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID in images


def test_area_is_that_of_the_outline_on_the_key_slice():
    """The slice with most of the ball, and its pixels times their area."""
    found = written("axial")
    (area,) = items(found.read("sr"), "Area")
    counts = found.labels.sum(axis=(1, 2))
    key = found.volume.headers[int(counts.argmax())]
    assert value(area) == (pytest.approx(counts.max() * 1.2 * 0.9), "mm2")
    image = area.ContentSequence[0].ContentSequence[0]
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == key.SOPInstanceUID


def test_document_is_preliminary_and_unverified():
    """TID 1500, complete, preliminary, unverified, and the words for people."""
    dataset = written("axial").read("sr")
    assert dataset.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    flags = (dataset.CompletionFlag, dataset.PreliminaryFlag, dataset.VerificationFlag)
    assert flags == ("COMPLETE", "PRELIMINARY", "UNVERIFIED")
    comments = [item.TextValue for item in items(dataset, "Comment")]
    assert comments[0] == "AI result, not verified by a physician."
    assert "never for a patient" in comments[1]


@pytest.mark.parametrize("role", ["sr", "sr-data"])
def test_observer_procedure_algorithm_and_finding(role):
    """Who, of what, by which build, and what was found."""
    dataset = written("oblique").read(role)
    assert [item.UID for item in items(dataset, "Device Observer UID")] == [IDENTITY.device_uid]
    assert next(items(dataset, "Procedure reported")).ConceptCodeSequence[0].CodeValue == "113091000"
    assert {item.TextValue for item in items(dataset, "Algorithm Version")} == {"1.2.3"}
    assert {item.TextValue for item in items(dataset, "Algorithm Parameters")} == {
        f"bundle sha256:{'ab' * 32}", "device: cpu", "precision: float32",
    }  # fmt: skip
    assert [item.ConceptCodeSequence[0].CodeMeaning for item in items(dataset, "Finding")] == ["Liver", "Mass"]
    assert [item.ConceptCodeSequence[0].CodeMeaning for item in items(dataset, "Finding Site")] == ["Liver"]


def test_tracking_uid_is_the_same_in_all_objects():
    """One thing, one UID: in the segmentation and in both reports."""
    found = written("oblique")
    segments = [item.TrackingUID for item in found.read("seg").SegmentSequence]
    for role in ("sr", "sr-data"):
        assert [item.UID for item in items(found.read(role), "Tracking Unique Identifier")] == segments


def test_only_found_segments_are_offered_for_editing():
    """OHIF makes an editable outline of this name; the frame of an image where nothing was found is none."""
    names = [item.TextValue for item in items(written("one of two found").read("sr"), "Tracking Identifier")]
    assert names == ["Cornerstone3DTools@^0.1.0:PlanarFreehandROI:Liver", "Lesion, nothing found"]


def test_flags_and_absence_are_stated():
    """What a reader must know stands in the report, each once."""
    comments = [item.TextValue for item in items(written("slices missing").read("sr"), "Comment")]
    assert comments[2:-1] == ["1 slice is missing and was interpolated."]
    comments = [item.TextValue for item in items(written("nothing found").read("sr"), "Comment")]
    assert comments[2:-1] == ["Nothing found: Liver.", "Nothing found: Lesion."]
    assert comments[-1] == "How it was computed: device: cpu; precision: float32; torch: 2.13.0."


def test_data_report_refers_to_the_segments():
    """TID 1411: each group to its own segment of this result set's segmentation."""
    found = written("oblique")
    segmentation = found.read("seg")
    targets = [item.ReferencedSOPSequence[0] for item in items(found.read("sr-data"), "Referenced Segment")]
    assert [target.ReferencedSegmentNumber for target in targets] == [1, 2]
    assert {target.ReferencedSOPInstanceUID for target in targets} == {segmentation.SOPInstanceUID}


def test_all_images_used_are_listed():
    """Image library and evidence name exactly the input."""
    found = written("slices missing")
    dataset = found.read("sr")
    images = {str(h.SOPInstanceUID) for h in found.volume.headers if h is not None}
    (group,) = items(dataset, "Image Library Group")
    assert {item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in group.ContentSequence} == images
    (study,) = dataset.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    assert {item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence} == images


def test_mask_on_interpolated_slices_only(tmp_path):
    """A volume is reported although no image shows it; nothing is outlined where nothing is."""
    found = written("slices missing")
    labels = np.zeros_like(found.labels)
    labels[4, 10:20, 10:20] = 1
    order = dataclasses.replace(found.order, output_dir=str(tmp_path))
    measured = (dataclasses.replace(found.measurements[0], value=100 * 3.24 / 1000),)
    objects = encode(found.volume, labels, measured, found.manifest, IDENTITY, order)
    changed = dataclasses.replace(found, labels=labels, measurements=measured, order=order, objects=objects)
    changed.verify()
    assert [value(item)[0] for item in items(changed.read("sr"), "Volume")] == [pytest.approx(0.324)]


@pytest.mark.parametrize("role", ["sr", "sr-data"])
def test_order_is_referenced(role):
    """The EHR's order by its numbers; its procedure is what was reported, where the images have no code of their own."""
    report = written("ordered").read(role)
    (item,) = report.ReferencedRequestSequence
    assert item.StudyInstanceUID == report.StudyInstanceUID
    assert item.AccessionNumber == report.AccessionNumber != ""
    assert item.PlacerOrderNumberImagingServiceRequest == "PL1"
    assert item.FillerOrderNumberImagingServiceRequest == "葉-1"
    assert item.RequestedProcedureID == ""
    assert item.RequestedProcedureCodeSequence[0].CodeValue == "169069000"
    assert [child.ConceptCodeSequence[0].CodeValue for child in items(report, "Procedure reported")] == ["169069000"]
    assert "ReferencedRequestSequence" not in written("axial").read(role)
