"""Enhanced multi-frame images as input: each frame where its functional groups say, and results on those frames."""

import copy
import dataclasses

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    LegacyConvertedEnhancedCTImageStorage,
    RLELossless,
)

from gateway.domain.errors import GateRefused, InputRefused
from tests.support.multiframe import SHAPE, enhanced, multiframe_results
from tests.support.result_set import IDENTITY, manifest, oblique
from tests.support.series import job_order
from workers.encode.measure import measure
from workers.encode.objects import encode
from workers.load.series import load
from workers.verify.gate import verify


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEGLSLossless])
def test_frames_are_placed_by_their_groups(tmp_path, modality, syntax):
    """Values, affine and frame numbers, whatever the order of frames and however they are packed."""
    file, voxels = enhanced(tmp_path, modality, syntax)
    volume = load(job_order([file], tmp_path, tmp_path / "result"), manifest())
    assert np.allclose(volume.affine, oblique(), atol=1e-3)
    assert np.array_equal(volume.voxels, voxels * 2.0 - 1000)
    assert sorted(volume.frames) == [1, 2, 3, 4, 5, 6]
    assert {str(header.SOPInstanceUID) for header in volume.headers} == {"1.2.3.2"}


def test_results_lie_on_frames(tmp_path):
    """Every frame of the segmentation names the frame it lies on, at that frame's position; the gate agrees."""
    objects, volume, labels, *rest = multiframe_results(tmp_path)
    verify(objects, volume, labels, *rest)
    dataset, image = dcmread(tmp_path / "result/seg.dcm"), dcmread(tmp_path / "enhanced/image.dcm")
    pixels = dataset.pixel_array.reshape(-1, *SHAPE[1:])
    painted = 0
    for frame, plane in zip(dataset.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        group = image.PerFrameFunctionalGroupsSequence[source.ReferencedFrameNumber - 1]
        place = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        assert np.allclose(frame.PlanePositionSequence[0].ImagePositionPatient, place, atol=1e-3)
        index = round((np.linalg.inv(oblique()) @ [*place, 1])[0])
        segment = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        assert np.array_equal(plane.astype(bool), labels[index] == segment)
        painted += int(plane.sum())
    assert painted == np.count_nonzero(labels)


@pytest.mark.parametrize("parts", [1, 2, 6])
def test_a_volume_painted_from_end_to_end_passes_the_gate(tmp_path, parts):
    """All frames in one image, in two, and in an image of one frame each: every reference is to the right class and frame."""
    file, _ = enhanced(tmp_path)
    contract = manifest()
    order = job_order(_divided(file, parts), tmp_path, tmp_path / "result")
    volume, labels = load(order, contract), np.ones(SHAPE, np.uint8)
    measured = measure(labels, volume, contract)
    objects = encode(volume, labels, measured, contract, IDENTITY, order)
    verify(objects, volume, labels, measured, contract, order)
    sources = [
        frame.DerivationImageSequence[0].SourceImageSequence[0]
        for frame in dcmread(tmp_path / "result/seg.dcm").PerFrameFunctionalGroupsSequence
    ]
    assert {source.ReferencedSOPClassUID for source in sources} == {LegacyConvertedEnhancedCTImageStorage}
    assert len({(source.ReferencedSOPInstanceUID, source.ReferencedFrameNumber) for source in sources}) == 6


def _divided(file, parts):
    """The frames of an image shared out evenly among several, as scanners do with long acquisitions."""
    image, found = dcmread(file), []
    groups, size = image.PerFrameFunctionalGroupsSequence, len(image.PixelData) // parts
    for part in range(parts):
        piece = copy.deepcopy(image)
        piece.NumberOfFrames = 6 // parts
        piece.SOPInstanceUID = piece.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.9.{part}"
        piece.PerFrameFunctionalGroupsSequence = groups[part * 6 // parts : (part + 1) * 6 // parts]
        piece.PixelData = image.PixelData[part * size : (part + 1) * size]
        found.append(file.with_name(f"part{part}.dcm"))
        piece.save_as(found[-1])
    return found


def test_another_frame_is_another_image(tmp_path):
    """The gate sees a segmentation that names the right image and the wrong frame of it."""
    objects, volume, *rest = multiframe_results(tmp_path)
    numbers = volume.frames
    turned = dataclasses.replace(volume, frames=numbers[::-1])
    with pytest.raises(GateRefused):
        verify(objects, turned, *rest)


def test_multiframe_without_groups_is_refused(tmp_path):
    """A cine loop does not say where its frames lie."""
    file, _ = enhanced(tmp_path)
    dataset = dcmread(file)
    del dataset.SharedFunctionalGroupsSequence
    dataset.save_as(file)
    with pytest.raises(InputRefused) as refusal:
        load(job_order([file], tmp_path, tmp_path / "result"), manifest())
    assert refusal.value.code == "multiframe"


def test_two_volumes_in_one_image_are_refused(tmp_path):
    """Frames at the same places, as of several times or echoes."""
    file, _ = enhanced(tmp_path)
    dataset = dcmread(file)
    frames = dataset.PerFrameFunctionalGroupsSequence
    for index in range(3):
        frames[index].PlanePositionSequence = frames[index + 3].PlanePositionSequence
    dataset.save_as(file)
    with pytest.raises(InputRefused) as refusal:
        load(job_order([file], tmp_path, tmp_path / "result"), manifest())
    assert refusal.value.code == "duplicate_position"


def test_side_of_the_body_stands_in_functional_groups(tmp_path):
    """Frame Laterality is what Image Laterality is elsewhere; U says nothing."""
    file, _ = enhanced(tmp_path, "MR")
    image = dcmread(file)
    for side, expected in (("R", "R"), ("U", "")):
        anatomy = Dataset()
        anatomy.FrameLaterality = side
        image.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [anatomy]
        image.save_as(file)
        volume = load(job_order([file], tmp_path, tmp_path / "result"), manifest())
        assert volume.first.get("ImageLaterality", "") == expected
