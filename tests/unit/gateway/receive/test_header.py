"""What is read from a dataset, and what of it is refused."""

from __future__ import annotations

import tracemalloc
import warnings
import zlib
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from gateway.domain.errors import InvalidIdentifier, NotDicom
from gateway.receive.header import part10_prefix, read_header
from tests.support.received import SERIES, STUDY, dataset, element, encode

LE = str(ExplicitVRLittleEndian)

FILES = [
    "CT_small.dcm", "MR_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm",
    "MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm", "MR_small_expb.dcm", "MR_small_padded.dcm", "MR_truncated.dcm",
    "image_dfl.dcm", "ExplVR_BigEnd.dcm", "ExplVR_LitEndNoMeta.dcm", "rtplan.dcm", "rtdose.dcm", "reportsi.dcm", "waveform_ecg.dcm",
    "liver_1frame.dcm", "SC_rgb_rle_2frame.dcm", "SC_rgb_jpeg_dcmtk.dcm", "JPEG2000.dcm",
    "test-SR.dcm",
]  # fmt: skip


def wire(name: str) -> tuple[bytes, str, Dataset]:
    """Dataset bytes and transfer syntax of one of pydicom's files, and the file as pydicom reads it whole."""
    path = Path(str(get_testdata_file(name)))
    meta = read_file_meta_info(path)
    start = 132 + 12 + int(meta.FileMetaInformationGroupLength)
    return path.read_bytes()[start:], str(meta.TransferSyntaxUID), dcmread(path)


@pytest.mark.parametrize("name", [name for name in FILES if "NoMeta" not in name])
def test_headers_of_real_files(name: str) -> None:
    """Every transfer syntax gives the identifiers that pydicom finds in the file."""
    data, syntax, whole = wire(name)
    header = read_header(data, syntax)
    assert header.sop_instance_uid == whole.SOPInstanceUID
    assert header.series_uid == whole.SeriesInstanceUID
    assert header.study_uid == whole.StudyInstanceUID
    assert header.sop_class_uid == whole.SOPClassUID
    assert header.transfer_syntax_uid == syntax
    assert header.modality == whole.get("Modality", "")
    assert header.patient.patient_id == (whole.get("PatientID") or "").strip()
    assert (header.rows, header.columns) == (whole.get("Rows") or 0, whole.get("Columns") or 0)
    assert header.frames == int(whole.get("NumberOfFrames") or 1)


@pytest.mark.parametrize(
    ("syntax", "options"),
    [
        (ExplicitVRLittleEndian, {}),
        (ImplicitVRLittleEndian, {"implicit": True}),
        (ExplicitVRBigEndian, {"little": False}),
        (JPEG2000Lossless, {}),
        ("1.3.46.670589.33.1.4.1", {}),
    ],
)
def test_every_attribute_in_every_encoding(syntax: str, options: dict[str, bool]) -> None:
    """Numbers and texts come out the same from each encoding, a private transfer syntax included."""
    made = dataset(7, AccessionNumber="A1", SliceThickness="2.5", NumberOfFrames=3, BodyPartExamined="BRAIN")
    header = read_header(encode(made, **options), syntax)
    assert header.sop_instance_uid == f"{SERIES}.7"
    assert header.image_type == ("ORIGINAL", "PRIMARY", "OTHER")
    assert header.orientation == (1, 0, 0, 0, 1, 0)
    assert header.position == (0, 0, 7)
    assert header.pixel_spacing == (1.0, 1.0)
    assert (header.rows, header.frames, header.slice_thickness) == (2, 3, 2.5)
    assert (header.accession_number, header.body_part) == ("A1", "BRAIN")


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 192", "Wang^XiaoDong=王^小东"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        ("ISO_IR 100", "Äneas^Rüdiger"),
        ("ISO_IR 144", "Люкceмбypг"),
    ],
)
def test_names_in_every_script(charset: str | list[str], name: str) -> None:
    """All groups of a name are kept in the character set that the dataset names."""
    made = dataset(SpecificCharacterSet=charset, PatientName=name)
    assert read_header(encode(made), LE).patient.name == name


def test_several_values_keep_their_backslash() -> None:
    """A Patient ID with a backslash stays what the source wrote, never a Python list."""
    header = read_header(encode(dataset(PatientID=["A", "B"], StudyDescription=["x", "y"])), LE)
    assert header.patient.patient_id == "A\\B"
    assert header.study_description == "x\\y"


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_missing_identifier(keyword: str) -> None:
    """Without an identifier it is no instance, absent or empty."""
    for value in (None, ""):
        with pytest.raises(NotDicom, match=keyword):
            read_header(encode(dataset(**{keyword: value})), LE)


@pytest.mark.parametrize("value", ["../../x", "/etc/passwd", "1.2.3;$(id)", "1..2", ".1", "1.", "1.2.a", "1" * 65])
def test_hostile_identifiers(value: str) -> None:
    """Text that is no UID goes no further, whichever identifier it claims to be."""
    padded = value.encode() + b"\0" * (len(value) % 2)
    tags = {"SOPInstanceUID": 0x00080018, "StudyInstanceUID": 0x0020000D, "SeriesInstanceUID": 0x0020000E}
    for keyword, tag in tags.items():
        rest = encode(dataset(**{keyword: None}))
        data = rest[: len(rest) if tag > 0x00200000 else 0] + element(tag, b"UI", padded)
        data = _in_order(dataset(**{keyword: None}), tag, element(tag, b"UI", padded)) if data else data
        with pytest.raises(InvalidIdentifier, match="not a valid UID") as raised:
            read_header(data, LE)
        assert value not in raised.value.message


def _in_order(rest: Dataset, tag: int, raw: bytes) -> bytes:
    before, after = Dataset(), Dataset()
    for item in rest:
        (before if item.tag < tag else after).add(item)
    return encode(before) + raw + encode(after)


def test_two_identifiers_in_one_are_none() -> None:
    """A UID of two values is not a UID."""
    with pytest.raises(InvalidIdentifier):
        read_header(_in_order(dataset(SOPInstanceUID=None), 0x00080018, element(0x00080018, b"UI", b"1.2\\1.3\0")), LE)


@pytest.mark.parametrize("syntax", ["../../x", "1.2 3", "x" * 70])
def test_hostile_transfer_syntax(syntax: str) -> None:
    """The transfer syntax goes into a file as well, and must be a UID."""
    with pytest.raises(InvalidIdentifier):
        read_header(encode(dataset()), syntax)


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        (0x00280010, b"OB", b"\1\2"),
        (0x00280010, b"LO", b"many"),
        (0x00280008, b"IS", b"1e99"),
        (0x00280008, b"IS", b"x "),
        (0x00200037, b"DS", b"1\\0\\zero"),
        (0x00280030, b"DS", b"nan\\inf "),
        (0x00180050, b"DS", b"1e999 "),
        (0x00080060, b"SQ", b""),
        (0x0018A001, b"US", b"\5\0"),
        (0x0018A001, b"LO", b"none"),
        (0x0018A001, b"SQ", b"\xfe\xff\x00\xe0\x00\x00\x00\x00"),
        (0x00100040, b"OB", b"\0\1"),
        (0x00080008, b"US", b"\1\0"),
        (0x00280030, b"DS", b"\\".join([b"1"] * 3001)),
    ],
)
def test_a_broken_value_counts_as_absent(tag: int, vr: bytes, value: bytes) -> None:
    """What is not essential never makes an image unreadable, and never leaves a value that is no number."""
    plain = dataset()
    if tag in plain:
        del plain[tag]
    header = read_header(_in_order(plain, tag, element(tag, vr, value)), LE)
    assert header.sop_instance_uid == f"{SERIES}.1"
    numbers = (*header.orientation, *header.pixel_spacing, header.slice_thickness or 0.0, header.rows, header.frames)
    assert all(abs(number) < 1e9 for number in numbers)
    assert len(numbers) < 20


def test_a_sequence_of_another_kind_is_no_device() -> None:
    """The device is found where purpose of reference is 1630, and only there."""
    purpose, item, other = Dataset(), Dataset(), Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "1630", "99IHE"
    item.PurposeOfReferenceCodeSequence, item.DeviceUID = [purpose], "1.2.3.4"
    other.DeviceUID = "1.2.3.5"
    assert read_header(encode(dataset(ContributingEquipmentSequence=[other, item])), LE).device_uid == "1.2.3.4"
    assert read_header(encode(dataset(ContributingEquipmentSequence=[other])), LE).device_uid == ""


@pytest.mark.parametrize("keyword", ["PatientID", "PatientName", "StudyDescription", "ImageType"])
def test_absurd_text_is_refused(keyword: str) -> None:
    """Nobody has a name of a million characters: it would go into the ledger, and cut off it would be another name."""
    with pytest.raises(NotDicom, match=keyword), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read_header(encode(dataset(**{keyword: "A" * 60_000})), LE)


@pytest.mark.parametrize("depth", [300, 3000])
@pytest.mark.parametrize("tag", [0x0018A001, 0x00091001])
def test_deep_nesting_is_refused(depth: int, tag: int) -> None:
    """Sequences in sequences in sequences are an answer, not a crash."""
    start = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") + b"SQ\0\0\xff\xff\xff\xff"
    opening = start + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    with pytest.raises(NotDicom):
        read_header(opening * depth + encode(dataset()), LE)


@pytest.mark.parametrize(
    "syntax", [DeflatedExplicitVRLittleEndian, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"]
)
def test_deflated_datasets(syntax: str) -> None:
    """Every transfer syntax that deflates the whole dataset is inflated."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    assert read_header(packer.compress(encode(dataset())) + packer.flush(), syntax).study_uid == STUDY


def test_deflated_bomb_takes_little_memory() -> None:
    """A file that inflates to 48 MiB is looked at up to 8 MiB."""
    length = (48 << 20).to_bytes(4, "little")
    pixels = _bomb(encode(dataset()) + b"\xe0\x7f\x10\x00OB\0\0" + length)
    private = _bomb(element(0x00091001, b"OB", b"")[:8] + length)
    tracemalloc.start()
    assert read_header(pixels, str(DeflatedExplicitVRLittleEndian)).study_uid == STUDY
    with pytest.raises(NotDicom):
        read_header(private, str(DeflatedExplicitVRLittleEndian))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 << 20


def _bomb(opening: bytes) -> bytes:
    packer = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    return packer.compress(opening) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(48)) + packer.flush()


def test_cut_anywhere() -> None:
    """A dataset that ends early is refused, or read as far as it goes with all its identifiers."""
    data = encode(dataset())
    whole = read_header(data, LE)
    answers = set()
    for length in range(len(data)):
        try:
            header = read_header(data[:length], LE)
        except (NotDicom, InvalidIdentifier):
            answers.add("refused")
        else:
            answers.add("read")
            assert (header.study_uid, header.series_uid) == (whole.study_uid, whole.series_uid)
    assert answers == {"refused", "read"}


@pytest.mark.parametrize("data", [b"", b"\0", b"GIF89a" * 100, b"%PDF-1.7\n" * 50, bytes(4096), b"\xff" * 4096])
def test_what_is_no_dataset(data: bytes) -> None:
    """Other files are refused in every encoding."""
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian):
        with pytest.raises((NotDicom, InvalidIdentifier)):
            read_header(data, str(syntax))


def test_no_value_is_quoted_on_stderr() -> None:
    """Libraries' warnings must not bring patient data into a log."""
    raw = _in_order(dataset(), 0x00200011, element(0x00200011, b"IS", b"JANE DOE"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_header(raw, LE)
    assert not caught


def test_prefix_makes_a_file_that_others_read(tmp_path: Path) -> None:
    """Prefix and dataset are a Part 10 file with the identifiers of the dataset and a zeroed preamble."""
    data = encode(dataset(3))
    header = read_header(data, LE)
    prefix = part10_prefix(header.sop_class_uid, header.sop_instance_uid, LE)
    (tmp_path / "file").write_bytes(prefix + data)
    whole = dcmread(tmp_path / "file")
    assert prefix[:128] == bytes(128)
    assert whole.file_meta.MediaStorageSOPInstanceUID == whole.SOPInstanceUID == f"{SERIES}.3"
    assert whole.file_meta.TransferSyntaxUID == LE
