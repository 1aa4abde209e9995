"""A segmentation lies where its images lie, frame by frame, and describes itself."""

import highdicom
import numpy as np
import pytest
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

from tests.support.result_set import AXIAL, CASES, UPRIGHT, Case, result_set, written

EVERY = pytest.mark.parametrize("name", CASES)


def frames(dataset):
    """Segment, source instance, position and pixels of each frame."""
    pixels = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    for item, plane in zip(dataset.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        (source,) = item.DerivationImageSequence[0].SourceImageSequence
        segment = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        yield segment, source.ReferencedSOPInstanceUID, item.PlanePositionSequence[0].ImagePositionPatient, plane


@EVERY
def test_frames_lie_on_their_images(name):
    """Each frame is the mask of the very slice it names, at that slice's position; no painted slice is missing."""
    found = written(name)
    index_of = {str(h.SOPInstanceUID): k for k, h in enumerate(found.volume.headers) if h is not None}
    rebuilt = np.zeros_like(found.labels)
    for segment, instance, position, plane in frames(found.read("seg")):
        index = index_of[instance]
        assert np.linalg.norm(np.array(position) - found.volume.headers[index].ImagePositionPatient) <= 1e-3
        rebuilt[index][plane == 1] = segment
    real = sorted(index_of.values())
    assert np.array_equal(rebuilt[real], found.labels[real])


@pytest.mark.parametrize("name", UPRIGHT)
def test_highdicom_reads_the_mask_back_in_patient_space(name):
    """A reader that stacks frames by position alone finds every painted voxel at the same millimetre."""
    found = written(name)
    stack = highdicom.seg.segread(found.path("seg")).get_volume(combine_segments=True, skip_overlap_checks=True)
    for number in range(1, len(found.manifest.output.segments) + 1):
        labels = found.labels.copy()
        labels[list(CASES[name].missing)] = 0
        painted = np.argwhere(labels == number) @ found.volume.affine[:3, :3].T + found.volume.affine[:3, 3]
        read = np.argwhere(stack.array == number) @ stack.affine[:3, :3].T + stack.affine[:3, 3]
        order, other = (np.lexsort(np.round(points, 2).T) for points in (painted, read))
        assert painted.shape == read.shape
        assert np.allclose(painted[order], read[other], atol=1e-3)


def test_form():
    """BINARY, Explicit VR Little Endian, derived, in the images' frame of reference, with no list that OHIF would misread."""
    found = written("oblique")
    dataset = found.read("seg")
    assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert (dataset.SOPClassUID, dataset.SegmentationType) == (SegmentationStorage, "BINARY")
    assert dataset.FrameOfReferenceUID == found.volume.first.FrameOfReferenceUID
    assert "SourceImageSequence" not in dataset
    assert dataset.ReferencedSeriesSequence[0].SeriesInstanceUID == found.volume.first.SeriesInstanceUID


def test_segments_describe_themselves():
    """Number, codes, colour, algorithm and version, tracking."""
    first, second = written("oblique").read("seg").SegmentSequence
    assert (first.SegmentNumber, second.SegmentNumber) == (1, 2)
    assert first.SegmentedPropertyTypeCodeSequence[0].CodeValue == "10200004"
    assert second.AnatomicRegionSequence[0].CodeMeaning == "Liver"
    assert list(first.RecommendedDisplayCIELabValue) == [35389, 43176, 41891]
    assert first.SegmentAlgorithmType == "AUTOMATIC"
    assert first.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == "1.2.3"
    assert first.TrackingUID != second.TrackingUID


def test_empty_slices_have_no_frame():
    """Only painted slices are written, also where a gap lies between them."""
    found = written("gaps in the mask")
    assert found.read("seg").NumberOfFrames == found.labels.any(axis=(1, 2)).sum()


def test_nothing_found_is_a_whole_object():
    """Every slice, empty, for each segment: a result, not a missing one."""
    dataset = written("nothing found").read("seg")
    assert dataset.NumberOfFrames == 2 * 9
    assert not dataset.pixel_array.any()
    assert len(dataset.SegmentSequence) == 2


def test_interpolated_slices_have_no_frame():
    """There is no image that such a frame could be shown on."""
    found = written("slices missing")
    assert found.labels[4].any()
    assert found.read("seg").NumberOfFrames == found.labels.any(axis=(1, 2)).sum() - 1


def _all(labels):
    labels[:] = 1


def _none(labels):
    labels[:] = 0


@pytest.mark.parametrize("paint", [None, _all, _none])
@pytest.mark.parametrize(
    "shape", [(9, 37, 43), (17, 35, 41), (9, 20, 44), (1, 37, 43), (2, 17, 19), (6, 13, 11), (3, 33, 8)]
)
def test_pixel_data_of_odd_matrices_misleads_no_viewer(tmp_path, shape, paint):
    """No padding byte, and never the length of frames that each begin on a byte of their own: OHIF would take them for such."""
    found = result_set(tmp_path, Case(roles=("seg", "seg-all-frames", "sr"), affine=AXIAL, shape=shape, paint=paint))
    found.verify()
    for role in ("seg", "seg-all-frames"):
        dataset = found.read(role)
        pixels, frames = dataset.Rows * dataset.Columns, dataset.NumberOfFrames
        length = len(dataset.PixelData)
        assert length == -(-pixels * frames // 8)
        assert frames == 1 or pixels % 8 == 0 or length != frames * -(-pixels // 8)
        assert dataset.pixel_array.sum() == found.labels.sum()


def test_thickness_of_the_source_is_kept_and_distance_is_measured(tmp_path):
    """2 mm thick slices every 3 mm; a header that lies about the distance is not believed."""
    case = Case(roles=("seg", "sr"), affine=AXIAL, attributes={"SliceThickness": "2", "SpacingBetweenSlices": "1"})
    shared = result_set(tmp_path, case).read("seg").SharedFunctionalGroupsSequence[0]
    measures = shared.PixelMeasuresSequence[0]
    assert (measures.SliceThickness, measures.SpacingBetweenSlices) == (2, 3)
