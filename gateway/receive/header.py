"""Reads from a dataset what the gateway needs, with limits, and never its pixels."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any, TypeVar

from pydicom import config
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_file_meta_info
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.uid import (
    PYDICOM_IMPLEMENTATION_UID,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from gateway.domain.errors import NotDicom
from gateway.domain.ids import InstanceUID, SeriesUID, StudyUID, Uid
from gateway.domain.study import Header, Patient

_BEYOND = 0x00280100  # Bits Allocated: everything we read stands before it
_INFLATED_LIMIT = 8 * 1024 * 1024  # bytes of a deflated dataset that are looked at
_TEXT_LIMIT = 1024  # characters; the longest value that PS3.5 6.2 allows for any attribute here has 194
_NUMBERS_LIMIT = 64  # values of one attribute; no attribute here has more than 6
_LARGEST = _UNDEFINED_LENGTH = 0xFFFFFFFF
_PROCESSING_ALGORITHM = ("1630", "99IHE")

_DEFLATED = {  # PS3.5 A.5, A.7 and A.12: the whole dataset is compressed, not only its pixels
    DeflatedExplicitVRLittleEndian,
    "1.2.840.10008.1.2.4.95",  # JPIP Referenced Deflate
    "1.2.840.10008.1.2.4.205",  # JPIP HTJ2K Referenced Deflate
}

# pydicom's warnings quote the values they are about, and those are patient data.
config.settings.reading_validation_mode = config.IGNORE

_U = TypeVar("_U", bound=Uid)


def read_header(data: bytes | memoryview, transfer_syntax_uid: str) -> Header:
    """Reads the header of an encoded dataset (no file meta information).

    Raises NotDicom where the data is not a dataset, ends inside an element of the header, lacks an identifier or holds
    a text of absurd length, and InvalidIdentifier where an identifier, or the transfer syntax, is no UID. Pixel data is
    not looked at: a dataset cut off there is kept as it came.
    """
    dataset = _parse(data, Uid(transfer_syntax_uid))
    return Header(
        sop_class_uid=_uid(dataset, "SOPClassUID", Uid),
        sop_instance_uid=_uid(dataset, "SOPInstanceUID", InstanceUID),
        series_uid=_uid(dataset, "SeriesInstanceUID", SeriesUID),
        study_uid=_uid(dataset, "StudyInstanceUID", StudyUID),
        transfer_syntax_uid=transfer_syntax_uid,
        patient=_patient(dataset),
        modality=_text(dataset, "Modality"),
        accession_number=_text(dataset, "AccessionNumber"),
        study_id=_text(dataset, "StudyID"),
        study_date=_text(dataset, "StudyDate"),
        study_time=_text(dataset, "StudyTime"),
        study_description=_text(dataset, "StudyDescription"),
        series_description=_text(dataset, "SeriesDescription"),
        series_number=_text(dataset, "SeriesNumber"),
        protocol_name=_text(dataset, "ProtocolName"),
        body_part=_text(dataset, "BodyPartExamined"),
        image_type=tuple(part.strip() for part in _text(dataset, "ImageType").split("\\") if part.strip()),
        manufacturer=_text(dataset, "Manufacturer"),
        institution=_text(dataset, "InstitutionName"),
        referring_physician=_text(dataset, "ReferringPhysicianName"),
        frame_of_reference_uid=_text(dataset, "FrameOfReferenceUID"),
        rows=_number(dataset, "Rows", int, 0),
        columns=_number(dataset, "Columns", int, 0),
        frames=_number(dataset, "NumberOfFrames", int, 1),
        orientation=tuple(_values(dataset, "ImageOrientationPatient", float)),
        position=tuple(_values(dataset, "ImagePositionPatient", float)),
        pixel_spacing=tuple(_values(dataset, "PixelSpacing", float)),
        slice_thickness=_number(dataset, "SliceThickness", float, None),
        device_uid=_device(dataset),
    )


def part10_prefix(header: Header) -> bytes:
    """What stands before the dataset in a file (PS3.10 7.1): a zeroed preamble, `DICM`, and file meta information of ours."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(header.sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(header.sop_instance_uid)
    meta.TransferSyntaxUID = UID(header.transfer_syntax_uid)
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    meta.ImplementationVersionName = "HILUM"
    buffer = BytesIO()
    write_file_meta_info(DicomIO(buffer), meta)
    return b"\0" * 128 + b"DICM" + buffer.getvalue()


def _parse(data: bytes | memoryview, syntax: str) -> Dataset:
    try:
        if syntax in _DEFLATED:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, _INFLATED_LIMIT)
        dataset = read_dataset(
            BytesIO(data),
            is_implicit_VR=syntax == ImplicitVRLittleEndian,
            is_little_endian=syntax != ExplicitVRBigEndian,
            stop_when=lambda tag, _vr, _length: tag >= _BEYOND,
        )
    # The parser meets hostile bytes here and has no error of its own; RecursionError and MemoryError are among them.
    except Exception as error:
        raise NotDicom(f"the dataset cannot be read in transfer syntax {syntax}") from error
    if any(_cut_off(item) for item in dataset.values()):  # these are raw; iterating over the dataset would decode
        raise NotDicom("the dataset ends inside an element")
    return dataset


def _cut_off(element: Any) -> bool:
    # The parser hands out what there is: half a UID would be another UID.
    whole = isinstance(element, RawDataElement) and element.length != _UNDEFINED_LENGTH
    return whole and len(element.value or b"") < element.length


def _read(dataset: Dataset, keyword: str) -> Any:
    # An attribute that is there but broken (a letter in a DS, say) counts as absent: only identifiers are essential.
    try:
        return dataset.get(keyword)
    except Exception:  # noqa: BLE001
        return None


def _text(dataset: Dataset, keyword: str) -> str:
    """The value as the source wrote it, several values with the backslash between them; no outer padding, no NUL."""
    value = _read(dataset, keyword)
    if value is None or isinstance(value, bytes | Sequence):
        return ""
    try:
        text = "\\".join(str(item) for item in value) if isinstance(value, MultiValue) else str(value)
    except Exception:  # noqa: BLE001  (as in `_read`: names are decoded only here)
        return ""
    if len(text) > _TEXT_LIMIT:
        raise NotDicom(f"{keyword} has more than {_TEXT_LIMIT} characters")
    return text.replace("\0", "").strip(" ")


def _uid(dataset: Dataset, keyword: str, kind: Callable[[str], _U]) -> _U:
    text = _text(dataset, keyword)
    if not text:
        raise NotDicom(f"the dataset has no {keyword}")
    return kind(text)


_N = TypeVar("_N", int, float)


def _number(dataset: Dataset, keyword: str, kind: type[_N], default: Any) -> Any:
    values = _values(dataset, keyword, kind)
    return values[0] if len(values) else default


def _values(dataset: Dataset, keyword: str, kind: Callable[[Any], Any]) -> list[Any]:
    value = _read(dataset, keyword)
    if value is None or isinstance(value, bytes | Sequence):
        return []
    items = value if isinstance(value, MultiValue) else [value]
    if len(items) > _NUMBERS_LIMIT:
        return []
    try:
        numbers = [kind(item) for item in items]
        return numbers if all(abs(number) <= _LARGEST for number in numbers) else []  # NaN is not
    except (ValueError, TypeError, OverflowError):
        return []


def _patient(dataset: Dataset) -> Patient:
    return Patient(
        patient_id=_text(dataset, "PatientID"),
        issuer=_text(dataset, "IssuerOfPatientID"),
        name=_text(dataset, "PatientName"),
        birth_date=_text(dataset, "PatientBirthDate"),
        sex=_text(dataset, "PatientSex"),
    )


def _device(dataset: Dataset) -> str:
    """Device UID of the algorithm that made an object (IHE AIR: purpose of reference 1630, 99IHE)."""
    for item in _items(dataset, "ContributingEquipmentSequence"):
        for purpose in _items(item, "PurposeOfReferenceCodeSequence"):
            if (_text(purpose, "CodeValue"), _text(purpose, "CodingSchemeDesignator")) == _PROCESSING_ALGORITHM:
                return _text(item, "DeviceUID")
    return ""


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    value = _read(dataset, keyword)
    return list(value) if isinstance(value, Sequence) else []
