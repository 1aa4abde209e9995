"""Maps and label maps: on the right slices, with the right numbers, in the right unit, or not at all."""

import dataclasses

import numpy as np
import pytest
from pydicom.uid import RLELossless

from tests.support.gate import ELSEWHERE, refusal


def frame(dataset, number=0):
    """A frame's description."""
    return dataset.PerFrameFunctionalGroupsSequence[number]


def source(dataset, number=0):
    """A frame's source image."""
    return frame(dataset, number).DerivationImageSequence[0].SourceImageSequence[0]


def mapping(dataset):
    """What the numbers mean."""
    return dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]


def _moved(dataset):
    place = frame(dataset).PlanePositionSequence[0]
    place.ImagePositionPatient = [*place.ImagePositionPatient[:2], float(place.ImagePositionPatient[2]) + 0.01]


def _swapped(dataset):
    for keyword in ("DerivationImageSequence", "PlanePositionSequence"):
        first, second = frame(dataset, 0)[keyword].value, frame(dataset, 1)[keyword].value
        setattr(frame(dataset, 0), keyword, second)
        setattr(frame(dataset, 1), keyword, first)


def _no_derivation(dataset):
    frame(dataset).DerivationImageSequence = []


def _source_list(dataset):
    dataset.SourceImageSequence = [source(dataset)]


def _foreign(dataset):
    source(dataset).ReferencedSOPInstanceUID = ELSEWHERE


def _turned(dataset):
    dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]


IN_BOTH = {
    "moved": (_moved, "position"),
    "two frames exchanged": (_swapped, "pixels"),
    "no source": (_no_derivation, "no_source"),
    "source list at the top": (_source_list, "source_list"),
    "source that is not in the input": (_foreign, "unknown_reference"),
    "turned": (_turned, "orientation"),
    "other frame of reference": (lambda d: setattr(d, "FrameOfReferenceUID", ELSEWHERE), "frame_of_reference"),
    "other patient": (lambda d: setattr(d, "PatientID", "P2"), "identity"),
}


@pytest.mark.parametrize("role", ["pm", "seg-labelmap"])
@pytest.mark.parametrize("name", IN_BOTH)
def test_misplaced(whole, role, name):
    """Nothing lies anywhere but on its image."""
    change, code = IN_BOTH[name]
    assert refusal(whole.changed(role, change)) == code


def _one_number(dataset):
    values = np.frombuffer(dataset.FloatPixelData, "<f4").copy()
    values[7] += 1e-3
    dataset.FloatPixelData = values.tobytes()


def _cut(dataset):
    dataset.FloatPixelData = dataset.FloatPixelData[:-4]


def _lost_frame(dataset):
    del dataset.PerFrameFunctionalGroupsSequence[-1]
    dataset.NumberOfFrames -= 1
    dataset.FloatPixelData = dataset.FloatPixelData[: -4 * dataset.Rows * dataset.Columns]


def _percent(dataset):
    mapping(dataset).MeasurementUnitsCodeSequence[0].CodeValue = "%"


def _scaled(dataset):
    mapping(dataset).RealWorldValueSlope = 100


def _other_quantity(dataset):
    mapping(dataset).QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeValue = "123"


SPOILED_MAP = {
    "a number changed": (_one_number, "pixels"),
    "pixel data too short": (_cut, "pixels"),
    "frame lost": (_lost_frame, "pixels"),
    "other unit": (_percent, "quantity"),
    "scaled": (_scaled, "quantity"),
    "other quantity": (_other_quantity, "quantity"),
}


@pytest.mark.parametrize("name", SPOILED_MAP)
def test_spoiled_map(whole, name):
    """The numbers are the model's, and are called what the model calls them."""
    change, code = SPOILED_MAP[name]
    assert refusal(whole.changed("pm", change)) == code


def test_map_that_the_model_did_not_give(whole):
    """Not one object for each map is no result set."""
    assert refusal(dataclasses.replace(whole, maps=())) == "result_set"


def _exchanged_labels(dataset):
    first, second = dataset.SegmentSequence
    first.SegmentNumber, second.SegmentNumber = 2, 1


def _other_pixels(dataset):
    dataset.decompress(generate_instance_uid=False)
    data = bytearray(dataset.PixelData)
    data[200] ^= 1
    dataset.PixelData = bytes(data)
    dataset.compress(RLELossless, generate_instance_uid=False)


SPOILED_LABEL_MAP = {
    "segments exchanged": (_exchanged_labels, "segment_number"),
    "said to be binary": (lambda d: setattr(d, "SegmentationType", "BINARY"), "form"),
    "other pixels": (_other_pixels, "pixels"),
}


@pytest.mark.parametrize("name", SPOILED_LABEL_MAP)
def test_spoiled_label_map(whole, name):
    """A label map is judged as the binary form is."""
    change, code = SPOILED_LABEL_MAP[name]
    assert refusal(whole.changed("seg-labelmap", change)) == code


def test_overlap_is_declared(whole):
    """Whether segments overlap decides how viewers paint them."""
    assert refusal(whole.changed("seg", lambda d: setattr(d, "SegmentsOverlap", "YES"))) == "overlap"
