"""Other forms of a result: written only where asked for, with UIDs of their own and the same content."""

from pydicom.uid import ComprehensiveSRStorage

from tests.support.gate import refusal
from tests.support.result_set import written


def test_only_where_asked_for():
    """The usual set has none of them."""
    assert {one.role for one in written("axial").objects}.isdisjoint({"sr-comprehensive", "seg-all-frames"})
    assert {one.role for one in written("sagittal").objects} >= {
        "sr-comprehensive", "sr-data-comprehensive", "seg-all-frames",
    }  # fmt: skip


def test_comprehensive_reports_say_the_same_as_objects_of_their_own():
    """Another class, instance and series; the content tree is the same."""
    found = written("sagittal")
    for usual, form in (("sr", "sr-comprehensive"), ("sr-data", "sr-data-comprehensive")):
        here, there = found.read(usual), found.read(form)
        assert there.SOPClassUID == there.file_meta.MediaStorageSOPClassUID == ComprehensiveSRStorage
        assert there.SOPInstanceUID == there.file_meta.MediaStorageSOPInstanceUID != here.SOPInstanceUID
        assert there.SeriesInstanceUID != here.SeriesInstanceUID
        assert there.ContentSequence == here.ContentSequence


def test_all_frames_have_a_frame_for_every_image():
    """Two segments on nine images, painted or not; the painted pixels are the same."""
    found = written("sagittal")
    every, usual = found.read("seg-all-frames"), found.read("seg")
    assert every.NumberOfFrames == 2 * 9 > usual.NumberOfFrames
    assert every.pixel_array.sum() == usual.pixel_array.sum() > 0


def test_gate_finds_a_wrong_group_in_another_form(good_forms):
    """A report form is judged as the report."""

    def no_groups(dataset):
        dataset.ContentSequence = dataset.ContentSequence[:-2]

    assert refusal(good_forms.changed("sr-comprehensive", no_groups)) == "tracking"


def test_gate_finds_a_wrong_frame_in_another_form(good_forms):
    """A segmentation form is judged as the segmentation."""

    def shifted(dataset):
        position = dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
        position.ImagePositionPatient = [0, 0, 77]

    assert refusal(good_forms.changed("seg-all-frames", shifted)) == "position"
