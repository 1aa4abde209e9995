"""Reads from a dataset what the gateway needs, with limits, and never its pixels."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any, TypeVar

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_file_meta_info
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
_PROCESSING_ALGORITHM = ("1630", "99IHE")

_U = TypeVar("_U", bound=Uid)


def read_header(data: bytes | memoryview, transfer_syntax_uid: str) -> Header:
    """Reads the header of an encoded dataset (no file meta information).

    Raises NotDicom where the data is not a dataset in that transfer syntax or lacks an identifier, and
    InvalidIdentifier where one is no UID.
    """
    dataset = _parse(data, transfer_syntax_uid)
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
        image_type=tuple(_values(dataset, "ImageType", str)),
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
        if syntax == DeflatedExplicitVRLittleEndian:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, _INFLATED_LIMIT)
        return read_dataset(
            BytesIO(data),
            is_implicit_VR=syntax == ImplicitVRLittleEndian,
            is_little_endian=syntax != ExplicitVRBigEndian,
            stop_when=lambda tag, _vr, _length: tag >= _BEYOND,
        )
    # The parser meets hostile bytes here and has no error of its own; RecursionError and MemoryError are among them.
    except Exception as error:
        raise NotDicom(f"the dataset cannot be read in transfer syntax {syntax}") from error


def _read(dataset: Dataset, keyword: str) -> Any:
    # An attribute that is there but broken (a letter in a DS, say) counts as absent: only identifiers are essential.
    try:
        return dataset.get(keyword)
    except Exception:  # noqa: BLE001
        return None


def _text(dataset: Dataset, keyword: str) -> str:
    value = _read(dataset, keyword)
    return "" if value is None else str(value).strip(" \0")


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
    if value is None or value == "":
        return []
    items = (
        value
        if isinstance(value, list | tuple) or (hasattr(value, "__iter__") and not isinstance(value, str))
        else [value]
    )
    try:
        return [kind(item) for item in items]
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
    for item in _read(dataset, "ContributingEquipmentSequence") or []:
        for purpose in _read(item, "PurposeOfReferenceCodeSequence") or []:
            if (_text(purpose, "CodeValue"), _text(purpose, "CodingSchemeDesignator")) == _PROCESSING_ALGORITHM:
                return _text(item, "DeviceUID")
    return ""
