"""Loading a series from files: what comes out, and what is refused with which sentence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from gateway.bundle.files import read_manifest
from gateway.bundle.input import Input
from gateway.bundle.manifest import Manifest
from gateway.domain.errors import InputRefused
from gateway.domain.messages import JobOrder
from tests.support.bundles import write_bundle
from tests.support.series import axial, input_file, job_order, write_series
from workers.load.series import load, load_series

SHAPE = (6, 40, 48)
VOXELS = np.random.default_rng(7).integers(0, 3000, SHAPE)
AFFINE = axial(SHAPE, (3.0, 1.0, 0.5))


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Of a model that takes any MR or CT."""
    return read_manifest(write_bundle(tmp_path / "bundle"))


def lenient(tmp_path: Path, **geometry: Any) -> Manifest:
    """Of a model with other geometry limits."""
    return read_manifest(write_bundle(tmp_path / "lenient", geometry=geometry))


def order(
    tmp_path: Path, voxels: NDArray[Any] = VOXELS, affine: NDArray[np.float64] = AFFINE, **options: Any
) -> JobOrder:
    """An order over a written series."""
    return job_order(write_series(tmp_path / "in", voxels, affine, **options), tmp_path, tmp_path / "out")


def refusal(order: JobOrder, manifest: Manifest) -> InputRefused:
    """What loading says."""
    with pytest.raises(InputRefused) as caught:
        load(order, manifest)
    assert len(caught.value.message) < 300
    return caught.value


def test_voxels_and_places_are_those_of_the_files(tmp_path: Path, manifest: Manifest) -> None:
    """Shuffled files become the volume they were written from, with each slice's own header and no pixel data."""
    volume = load(order(tmp_path), manifest)
    assert np.array_equal(volume.voxels, VOXELS)
    assert np.allclose(volume.affine, AFFINE)
    assert volume.spacing == pytest.approx((3.0, 1.0, 0.5))
    positions = [float(header.ImagePositionPatient[2]) for header in volume.headers if header is not None]
    assert positions == [-7.5, -4.5, -1.5, 1.5, 4.5, 7.5]
    assert not any("PixelData" in header for header in volume.headers if header is not None)


def test_rows_go_down_and_columns_go_left(tmp_path: Path, manifest: Manifest) -> None:
    """A known voxel of a sagittal series lies where PS3.3 C.7.6.2.1.1 puts it, computed by hand."""
    affine = np.array([[2.0, 0, 0, 10], [0, 0, 0.5, -20], [0, -1.0, 0, 30], [0, 0, 0, 1]])
    # Row direction (0,1,0), column direction (0,0,-1): the normal is (-1,0,0), against the slices as written.
    volume = load(order(tmp_path, affine=affine), manifest)
    first = volume.voxels[:, 4, 6]
    assert np.array_equal(first, VOXELS[::-1, 4, 6])
    assert volume.affine @ [0, 4, 6, 1] == pytest.approx([20.0, -17.0, 26.0, 1.0])


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEGLSLossless,
        JPEG2000Lossless,
    ],
    ids=lambda uid: uid.name,
)
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_every_transfer_syntax_gives_the_same_voxels(
    tmp_path: Path, manifest: Manifest, syntax: str, signed: bool
) -> None:
    """Signed and unsigned values survive every encoding exactly."""
    voxels = VOXELS - 1500 * signed
    volume = load(order(tmp_path, voxels, modality="CT", transfer_syntax=syntax, signed=signed), manifest)
    assert np.array_equal(volume.voxels, voxels)


def test_each_slice_has_its_own_rescale(tmp_path: Path, manifest: Manifest) -> None:
    """Slope and intercept are applied image by image, as PET and some CT need it."""

    def rescale(index: int, dataset: Dataset) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = index + 1, -1024

    volume = load(order(tmp_path, change=rescale, modality="CT"), manifest)
    assert np.array_equal(volume.voxels, VOXELS * np.arange(1, 7)[:, None, None] - 1024)


def test_images_of_a_series_may_be_encoded_differently(tmp_path: Path, manifest: Manifest) -> None:
    """Byte order, compression and bits stored change from image to image: what looks alike is not taken for the same."""
    syntaxes = (ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, ImplicitVRLittleEndian)
    paths: list[Path] = []
    for number, syntax in enumerate(syntaxes):
        written = write_series(
            tmp_path / syntax, VOXELS, AFFINE, modality="CT", transfer_syntax=syntax, slope=number + 1
        )
        paths += written[number :: len(syntaxes)]
    volume = load(job_order(paths, tmp_path, tmp_path / "out"), manifest)
    assert np.array_equal(volume.voxels, VOXELS * (np.arange(6) % 4 + 1)[:, None, None])


def test_bits_above_high_bit_are_not_part_of_the_value(tmp_path: Path, manifest: Manifest) -> None:
    """Twelve bits stored, an overlay in the upper four, and negative numbers that were not extended."""
    voxels = VOXELS - 1500

    def pack(index: int, dataset: Dataset) -> None:
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 1
        dataset.PixelData = ((voxels[index] & 0x0FFF) | 0xA000).astype("<u2").tobytes()

    assert np.array_equal(load(order(tmp_path, change=pack), manifest).voxels, voxels)


def test_a_gap_is_refused_with_numbers(tmp_path: Path, manifest: Manifest) -> None:
    """A missing slice is a refusal that says how many are missing and where."""
    error = refusal(order(tmp_path, missing=[2]), manifest)
    assert error.code == "gap"
    assert error.message == "1 of 6 slices are missing, the first after slice 2 (6.00 mm to the next)"


def test_a_gap_is_interpolated_and_flagged_where_the_manifest_says_so(tmp_path: Path) -> None:
    """The missing slice is the mean of its neighbours, has no header, and the volume says so."""
    volume = load(order(tmp_path, missing=[2]), lenient(tmp_path, gaps="flag"))
    assert np.allclose(volume.voxels[2], (VOXELS[1] + VOXELS[3]) / 2)
    assert [index for index, header in enumerate(volume.headers) if header is None] == [2]
    assert volume.flags == ("1 of 6 slices were missing and were interpolated from their neighbours.",)


def move(along: list[float], which: int = 3) -> Any:
    """A change that moves one slice by some mm."""

    def change(index: int, dataset: Dataset) -> None:
        if index == which:
            place = np.array(dataset.ImagePositionPatient, float) + along
            dataset.ImagePositionPatient = [f"{value:.6g}" for value in place]

    return change


def setting(which: int = 3, **values: object) -> Any:
    """A change that sets attributes of one slice."""

    def change(index: int, dataset: Dataset) -> None:
        if index == which:
            for keyword, value in values.items():
                setattr(dataset, keyword, value)

    return change


def lying(index: int, dataset: Dataset) -> None:
    """Each slice 6 mm beside the one before, at 3 mm distance: no gantry tilts like that."""
    move([0, 6.0 * index, 0], index)(index, dataset)


def crop(index: int, dataset: Dataset) -> None:
    """One slice is smaller."""
    if index == 3:
        dataset.Rows, dataset.PixelData = 39, dataset.PixelData[: 39 * 48 * 2]


def drop(keyword: str) -> Any:
    """A change that removes an attribute from one slice."""

    def change(index: int, dataset: Dataset) -> None:
        if index == 3:
            delattr(dataset, keyword)

    return change


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("uneven", move([0, 0, 2.6])),
        ("duplicate_position", move([0, 0, 3.0])),
        ("sheared", lying),
        ("sheared", move([2.0, 0, 0])),
        ("size", crop),
        ("size", setting(PixelSpacing=["1.1", "0.5"])),
        ("geometry", setting(PixelSpacing=["0", "0.5"])),
        ("geometry", drop("PixelSpacing")),
        ("geometry", drop("ImagePositionPatient")),
        ("geometry", drop("ImageOrientationPatient")),
        ("orientation", setting(ImageOrientationPatient=[0, 1, 0, 0, 0, -1])),
        ("orientation", lambda _, d: setattr(d, "ImageOrientationPatient", [1, 0, 0, 0.5, 1, 0])),
        ("frame_of_reference", setting(FrameOfReferenceUID="1.2.3")),
        ("frame_of_reference", drop("FrameOfReferenceUID")),
        ("series", setting(SeriesInstanceUID="1.2.3")),
        ("study", setting(StudyInstanceUID="1.2.3")),
        ("mixed_patients", setting(PatientID="OTHER")),
        ("modality", lambda _, d: setattr(d, "Modality", "PT")),
        ("multiframe", setting(NumberOfFrames=2)),
        ("multiframe", setting(SharedFunctionalGroupsSequence=DicomSequence())),
        ("sop_class", setting(SOPClassUID=EnhancedMRImageStorage)),
        ("photometric", setting(PhotometricInterpretation="RGB", SamplesPerPixel=3)),
        ("undecodable", setting(Rows=40, PixelData=b"\0" * 100)),
        ("undecodable", setting(PixelData=bytes(2 * 2 * 40 * 48))),
        ("undecodable", drop("PixelData")),
        ("undecodable", drop("BitsStored")),
        ("undecodable", setting(HighBit=14)),
        ("undecodable", setting(BitsAllocated=12)),
        ("undecodable", setting(RescaleSlope=0, RescaleIntercept=0)),
        ("undecodable", setting(RescaleSlope="1e300", RescaleIntercept=0)),
        ("blank", lambda _, d: setattr(d, "PixelData", bytes(2 * 40 * 48))),
    ],
)
def test_what_is_not_one_stack_of_images_is_refused(tmp_path: Path, manifest: Manifest, code: str, change: Any) -> None:
    """Each way a series can be wrong has its own code."""
    assert refusal(order(tmp_path, change=change), manifest).code == code


def test_inverted_display_is_no_other_measurement(tmp_path: Path, manifest: Manifest) -> None:
    """MONOCHROME1 says how MR, CT, PT and NM are shown (PS3.3 C.7.6.3.1.2), and nothing about their values."""
    plain = load(order(tmp_path / "a"), manifest)
    shown = load(
        order(tmp_path / "b", change=lambda _, d: setattr(d, "PhotometricInterpretation", "MONOCHROME1")), manifest
    )
    assert np.array_equal(plain.voxels, shown.voxels)


def test_inverted_film_is_refused(tmp_path: Path) -> None:
    """In projection images the values themselves are those of a film: models were trained on the others."""
    found = order(tmp_path, attributes={"Modality": "OT", "PhotometricInterpretation": "MONOCHROME1"})
    with pytest.raises(InputRefused) as refused:
        load_series(found.inputs, Input(modality=("OT",)), 4096)
    assert refused.value.code == "photometric"


def test_huge_dimensions_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    """Every image claims 65535 x 65535 pixels and has a few bytes."""

    def boast(_: int, dataset: Dataset) -> None:
        dataset.Rows = dataset.Columns = 65535

    unlimited = lenient(tmp_path, extent={"min": 1, "max": 1_000_000})
    assert refusal(order(tmp_path, change=boast), unlimited).code == "too_large"


def recoded(tmp_path: Path, syntax: str, change: Callable[[bytes], bytes]) -> JobOrder:
    """An order over a compressed series in which one image's codestream was changed."""
    paths = write_series(tmp_path / "in", VOXELS, AFFINE, transfer_syntax=syntax)
    dataset = dcmread(paths[2])
    (stream,) = generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate([change(stream)])
    dataset.save_as(paths[2])
    return job_order(paths, tmp_path, tmp_path / "out")


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless], ids=lambda uid: uid.name)
@pytest.mark.parametrize("cut", [4, 400])
def test_cut_off_compressed_pixels_are_refused(tmp_path: Path, manifest: Manifest, syntax: str, cut: int) -> None:
    """A codestream that ends too early is no image, even where a decoder makes up the rest (as that of JPEG-LS does)."""
    assert refusal(recoded(tmp_path, syntax, lambda stream: stream[:-cut]), manifest).code == "undecodable"


@pytest.mark.parametrize("padding", [b"\0\0", b"\xff\0"])
def test_padding_after_a_codestream_is_harmless(tmp_path: Path, manifest: Manifest, padding: bytes) -> None:
    """Encoders fill up to an even length in their own ways."""
    volume = load(recoded(tmp_path, JPEGLSLossless, lambda stream: stream + padding), manifest)
    assert np.array_equal(volume.voxels, VOXELS)


def test_a_file_that_changed_is_refused(tmp_path: Path, manifest: Manifest) -> None:
    """One flipped bit in a file is noticed before anything is computed."""
    made = order(tmp_path)
    path = Path(made.inputs[0].path)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    assert refusal(made, manifest).code == "changed"


def test_a_file_of_another_instance_is_refused(tmp_path: Path, manifest: Manifest) -> None:
    """An order that names one instance and the file of another is wrong."""
    made = order(tmp_path)
    swapped = dataclasses.replace(made.inputs[0], sop_instance_uid=made.inputs[1].sop_instance_uid)
    assert refusal(dataclasses.replace(made, inputs=(swapped, *made.inputs[1:])), manifest).code == "changed"


def test_the_same_instance_twice_is_refused(tmp_path: Path, manifest: Manifest) -> None:
    """An instance that is listed twice is an error of ours that must not pass."""
    made = order(tmp_path)
    twice = dataclasses.replace(made, inputs=(*made.inputs, made.inputs[0]))
    assert refusal(twice, manifest).code == "duplicate_instance"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"\0" * 128 + b"DICM",
        b"\0" * 128 + b"DICM\x02\x00\x00\x00UL",
        b"\0" * 128 + b"DICM" + b"\x02\x00" * 9,
    ],
)
def test_a_file_that_is_not_dicom_is_refused(tmp_path: Path, manifest: Manifest, data: bytes) -> None:
    """Anything that is not a Part 10 file is refused, never a crash."""
    made = order(tmp_path)
    Path(made.inputs[0].path).write_bytes(data)
    assert refusal(made, manifest).code in ("undecodable", "changed")


def test_sequences_nested_without_end_are_refused(tmp_path: Path, manifest: Manifest) -> None:
    """Ten thousand sequences in one another exhaust the parser, not the process."""
    made = order(tmp_path)
    path = Path(made.inputs[0].path)
    nested = (b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 10_000
    path.write_bytes(path.read_bytes()[: 132 + 12 + 186] + nested)
    hostile = dataclasses.replace(input_file_without_reading(path), sop_instance_uid=made.inputs[0].sop_instance_uid)
    assert refusal(dataclasses.replace(made, inputs=(hostile, *made.inputs[1:])), manifest).code == "undecodable"


def input_file_without_reading(path: Path) -> Any:
    """The digest of a file whose dataset cannot be parsed."""
    import hashlib

    from gateway.domain.messages import InputFile
    from workers.load.part10 import dataset_start

    data = path.read_bytes()
    return InputFile(
        sop_instance_uid="", path=str(path), sha256=hashlib.sha256(data[dataset_start(data) :]).hexdigest()
    )


@pytest.mark.parametrize(
    ("code", "geometry"),
    [
        ("slices", {"slices": {"min": 7, "max": 9}}),
        ("slices", {"slices": {"min": 1, "max": 5}}),
        ("spacing", {"spacing": {"min": 0.6, "max": 5}}),
        ("spacing", {"spacing": {"min": 0.1, "max": 2}}),
        ("extent", {"extent": {"min": 20, "max": 100}}),
        ("extent", {"extent": {"min": 1, "max": 30}}),
    ],
)
def test_the_limits_of_the_manifest_hold(tmp_path: Path, code: str, geometry: dict[str, Any]) -> None:
    """Slices, spacing and extent outside what the model was made for are refused."""
    assert refusal(order(tmp_path), lenient(tmp_path, **geometry)).code == code


def test_a_single_slice_needs_a_manifest_that_takes_it(tmp_path: Path) -> None:
    """One image is a volume as thick as its slice, where the model takes one slice at all."""
    affine = axial((1, 40, 48), (5.0, 1.0, 1.0))
    made = order(tmp_path, VOXELS[:1], affine)
    assert load(made, lenient(tmp_path)).spacing == pytest.approx((5.0, 1.0, 1.0))
    assert refusal(made, lenient(tmp_path, slices={"min": 2, "max": 9})).code == "slices"


def test_digests_follow_the_file_meta_information_whatever_its_length_says(tmp_path: Path) -> None:
    """The digest our tests compute from Group Length is the one the loader finds by walking the elements."""
    from workers.load.part10 import dataset_start

    path = write_series(tmp_path / "in", VOXELS[:1], AFFINE)[0]
    data = path.read_bytes()
    start = dataset_start(data)
    assert data[start : start + 2] == b"\x08\x00"
    wrong = bytearray(data)
    wrong[140:144] = (9999).to_bytes(4, "little")
    assert dataset_start(bytes(wrong)) == start
    assert input_file(path).sha256
