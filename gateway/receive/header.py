"""Reads from a dataset what the gateway needs, with limits, and never its pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from typing import TypeVar

from pydicom import config
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import tag_for_keyword
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, DeflatedExplicitVRLittleEndian
from pydicom.valuerep import TEXT_VR_DELIMS, PersonName

from gateway.domain.errors import NotDicom
from gateway.domain.ids import InstanceUID, SeriesUID, StudyUID, Uid
from gateway.domain.study import Header, Patient
from gateway.receive.elements import CutOff, Element, encoding_of

_BEYOND = 0x00280100  # Bits Allocated: everything we read stands before it
_INFLATED_LIMIT = 8 * 1024 * 1024  # bytes of a deflated dataset that are looked at
_TEXT_LIMIT = 1024  # characters; the longest value that PS3.5 6.2 allows for any attribute here has 194
_NUMBERS_LIMIT = 64  # values of one attribute; no attribute here has more than 6
_LARGEST = 0xFFFFFFFF
_PROCESSING_ALGORITHM = ("1630", "99IHE")

DEFLATED = {  # PS3.5 A.5, A.7 and A.12: the whole dataset is compressed, not only its pixels
    DeflatedExplicitVRLittleEndian,
    "1.2.840.10008.1.2.4.95",  # JPIP Referenced Deflate
    "1.2.840.10008.1.2.4.205",  # JPIP HTJ2K Referenced Deflate
}

# Warnings quote the values they are about, and those are patient data.
config.settings.reading_validation_mode = config.IGNORE

_TEXT_VRS = {b"LO", b"LT", b"PN", b"SH", b"ST", b"UC", b"UT"}  # in the character set of the dataset
_CODE_VRS = {b"AE", b"AS", b"CS", b"DA", b"DS", b"DT", b"IS", b"TM", b"UI", b"UR"}  # in the default repertoire
_NUMBER_VRS = {b"US": "H", b"SS": "h", b"UL": "I", b"SL": "i", b"FL": "f", b"FD": "d", b"UV": "Q", b"SV": "q"}

_KEYWORDS: Mapping[str, bytes] = {  # and their VR, for encodings that do not name it
    "SpecificCharacterSet": b"CS", "ImageType": b"CS", "SOPClassUID": b"UI", "SOPInstanceUID": b"UI", "StudyDate": b"DA",
    "StudyTime": b"TM", "AccessionNumber": b"SH", "Modality": b"CS", "Manufacturer": b"LO", "InstitutionName": b"LO",
    "ReferringPhysicianName": b"PN", "StudyDescription": b"LO", "SeriesDescription": b"LO", "PatientName": b"PN",
    "PatientID": b"LO", "IssuerOfPatientID": b"LO", "PatientBirthDate": b"DA", "PatientSex": b"CS", "BodyPartExamined": b"CS",
    "ContrastBolusAgent": b"LO",
    "SliceThickness": b"DS", "ProtocolName": b"LO", "ContributingEquipmentSequence": b"SQ", "StudyInstanceUID": b"UI",
    "SeriesInstanceUID": b"UI", "StudyID": b"SH", "SeriesNumber": b"IS", "InstanceNumber": b"IS", "ImagePositionPatient": b"DS",
    "ImageOrientationPatient": b"DS", "FrameOfReferenceUID": b"UI", "NumberOfFrames": b"IS", "Rows": b"US", "Columns": b"US",
    "PixelSpacing": b"DS", "PurposeOfReferenceCodeSequence": b"SQ", "CodeValue": b"SH", "CodingSchemeDesignator": b"SH",
    "DeviceUID": b"UI",
}  # fmt: skip
_TAGS = {keyword: int(tag_for_keyword(keyword) or 0) for keyword in _KEYWORDS}
_WANTED = frozenset(_TAGS.values())

_U = TypeVar("_U", bound=Uid)
_N = TypeVar("_N", int, float)


class Incomplete(CutOff):
    """The header goes on beyond the data that was shown."""


def read_header(data: bytes | bytearray | memoryview, transfer_syntax_uid: str, *, whole: bool = True) -> Header:
    """Reads the header of an encoded dataset (no file meta information).

    Raises NotDicom where the data is not a dataset, ends inside an element of the header, lacks an identifier or holds
    a text of absurd length, and InvalidIdentifier where an identifier, or the transfer syntax, is no UID. Pixel data is
    not looked at: a dataset cut off there is kept as it came. Of a dataset whose beginning is shown (``whole`` is
    false), Incomplete is raised where that does not reach the end of the header.
    """
    dataset = _Values(*_parse(memoryview(data), Uid(transfer_syntax_uid), whole))
    return Header(
        sop_class_uid=dataset.uid("SOPClassUID", Uid),
        sop_instance_uid=dataset.uid("SOPInstanceUID", InstanceUID),
        series_uid=dataset.uid("SeriesInstanceUID", SeriesUID),
        study_uid=dataset.uid("StudyInstanceUID", StudyUID),
        transfer_syntax_uid=transfer_syntax_uid,
        patient=_patient(dataset),
        modality=dataset.text("Modality"),
        accession_number=dataset.text("AccessionNumber"),
        study_id=dataset.text("StudyID"),
        study_date=dataset.text("StudyDate"),
        study_time=dataset.text("StudyTime"),
        study_description=dataset.text("StudyDescription"),
        series_description=dataset.text("SeriesDescription"),
        series_number=dataset.text("SeriesNumber"),
        instance_number=dataset.text("InstanceNumber"),
        protocol_name=dataset.text("ProtocolName"),
        body_part=dataset.text("BodyPartExamined"),
        image_type=tuple(part.strip() for part in dataset.text("ImageType").split("\\") if part.strip()),
        manufacturer=dataset.text("Manufacturer"),
        institution=dataset.text("InstitutionName"),
        referring_physician=dataset.text("ReferringPhysicianName"),
        frame_of_reference_uid=dataset.text("FrameOfReferenceUID"),
        rows=dataset.number("Rows", int, 0),
        columns=dataset.number("Columns", int, 0),
        frames=dataset.number("NumberOfFrames", int, 1),
        orientation=dataset.numbers("ImageOrientationPatient", float),
        position=dataset.numbers("ImagePositionPatient", float),
        pixel_spacing=dataset.numbers("PixelSpacing", float),
        slice_thickness=dataset.number("SliceThickness", float, None),
        contrast_agent=dataset.text("ContrastBolusAgent"),
        device_uid=_device(dataset),
    )


def part10_prefix(sop_class_uid: Uid, sop_instance_uid: Uid, transfer_syntax_uid: Uid) -> bytes:
    """What stands before the dataset in a file (PS3.10 7.1): a zeroed preamble, `DICM`, and file meta information of ours."""
    elements = [
        struct.pack("<HH2sxxI", 0x0002, 0x0001, b"OB", 2) + b"\0\1",
        _meta(0x0002, b"UI", sop_class_uid, "\0"),
        _meta(0x0003, b"UI", sop_instance_uid, "\0"),
        _meta(0x0010, b"UI", transfer_syntax_uid, "\0"),
        _meta(0x0012, b"UI", PYDICOM_IMPLEMENTATION_UID, "\0"),
        _meta(0x0013, b"SH", "HILUM", " "),
    ]
    body = b"".join(elements)
    return b"\0" * 128 + b"DICM" + struct.pack("<HH2sHI", 0x0002, 0x0000, b"UL", 4, len(body)) + body


def _meta(number: int, vr: bytes, text: str, padding: str) -> bytes:
    value = (text + padding * (len(text) % 2)).encode("ascii")
    return struct.pack("<HH2sH", 0x0002, number, vr, len(value)) + value


def _parse(data: memoryview, syntax: str, whole: bool) -> tuple[dict[int, Element], tuple[str, ...]]:
    """Wanted elements, and the encodings of their texts."""
    if syntax in DEFLATED:
        try:
            data = memoryview(zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, _INFLATED_LIMIT))
        except zlib.error as error:
            raise NotDicom(f"the dataset cannot be inflated in transfer syntax {syntax}") from error
    try:
        found, reached = encoding_of(data, syntax).elements(data, _WANTED, beyond=_BEYOND)
    except CutOff as error:
        raise (error if whole else Incomplete(error.message)) from error
    if not (whole or reached):
        raise Incomplete("the header goes on")
    charset = found.get(_TAGS["SpecificCharacterSet"])
    if charset is None or not charset.value:
        return found, ()
    names = bytes(charset.value).decode("ascii", "replace").replace("\0", " ").split("\\")
    try:
        return found, tuple(convert_encodings([name.strip() for name in names]))
    except (LookupError, ValueError):
        return found, ()


class _Values:
    """Values of the elements that were found. What is there but broken (a letter in a DS, say) counts as absent."""

    def __init__(self, elements: Mapping[int, Element], charsets: tuple[str, ...]) -> None:
        self._elements, self._charsets = elements, charsets

    def text(self, keyword: str) -> str:
        """The value as the source wrote it, several values with the backslash between them; no outer padding, no NUL."""
        element = self._elements.get(_TAGS[keyword])
        if element is None or not element.value:
            return ""
        vr = _vr(keyword, element)
        if vr not in _TEXT_VRS and vr not in _CODE_VRS:
            return ""
        if len(element.value) > 4 * _TEXT_LIMIT:
            raise NotDicom(f"{keyword} has more than {_TEXT_LIMIT} characters")
        text = self._decode(bytes(element.value), vr)
        if len(text) > _TEXT_LIMIT:
            raise NotDicom(f"{keyword} has more than {_TEXT_LIMIT} characters")
        return text.replace("\0", "").strip(" ")

    def uid(self, keyword: str, kind: Callable[[str], _U]) -> _U:
        """An identifier; raises NotDicom where there is none, InvalidIdentifier where it is none."""
        text = self.text(keyword)
        if not text:
            raise NotDicom(f"the dataset has no {keyword}")
        return kind(text)

    def number(self, keyword: str, kind: type[_N], default: _N | None) -> _N:
        """The first value."""
        values = self.numbers(keyword, kind)
        return values[0] if values else default  # type: ignore[return-value]

    def numbers(self, keyword: str, kind: type[_N]) -> tuple[_N, ...]:
        """All values, or none of them."""
        element = self._elements.get(_TAGS[keyword])
        if element is None or not 0 < len(element.value) <= 32 * _NUMBERS_LIMIT:
            return ()
        vr = _vr(keyword, element)
        try:
            values = _binary(element, _NUMBER_VRS[vr]) if vr in _NUMBER_VRS else _decimal(element, kind)
            numbers = tuple(kind(value) for value in values)
        except (ValueError, OverflowError):
            return ()
        fit = len(numbers) <= _NUMBERS_LIMIT and all(abs(number) <= _LARGEST for number in numbers)  # NaN is not
        return numbers if fit else ()

    def items(self, keyword: str) -> list[_Values]:
        """The items of a sequence."""
        element = self._elements.get(_TAGS[keyword])
        if element is None or _vr(keyword, element) != b"SQ":
            return []
        encoding = element.encoding
        try:
            found = [encoding.elements(item, _WANTED)[0] for item in encoding.items(element.value)]
        except NotDicom:
            return []
        return [_Values(item, self._charsets) for item in found]

    def _decode(self, value: bytes, vr: bytes) -> str:
        if value.isascii() and b"\x1b" not in value:
            return value.decode("ascii")
        if vr in _CODE_VRS or not self._charsets:
            return value.decode("latin-1")
        try:
            if vr == b"PN":
                return str(PersonName(value.rstrip(b"\0 "), self._charsets))
            return decode_bytes(value, self._charsets, TEXT_VR_DELIMS)
        except (LookupError, ValueError):  # of a character set that is unknown, or not the one of this text
            return ""


def _vr(keyword: str, element: Element) -> bytes:
    return _KEYWORDS[keyword] if element.vr in (b"", b"UN") else element.vr


def _binary(element: Element, code: str) -> tuple[float, ...]:
    count = len(element.value) // struct.calcsize("=" + code)
    return struct.unpack_from(f"{element.encoding.order}{count}{code}", element.value)


def _decimal(element: Element, kind: type[int] | type[float]) -> list[float]:
    texts = bytes(element.value).decode("ascii").replace("\0", " ").split("\\")
    if kind is float:
        return [float(text) for text in texts]
    numbers = [float(text) for text in texts]
    if any(number != int(number) for number in numbers):
        raise ValueError
    return numbers


def _patient(dataset: _Values) -> Patient:
    return Patient(
        patient_id=dataset.text("PatientID"),
        issuer=dataset.text("IssuerOfPatientID"),
        name=dataset.text("PatientName"),
        birth_date=dataset.text("PatientBirthDate"),
        sex=dataset.text("PatientSex"),
    )


def _device(dataset: _Values) -> str:
    """Device UID of the algorithm that made an object (IHE AIR: purpose of reference 1630, 99IHE)."""
    for item in dataset.items("ContributingEquipmentSequence"):
        for purpose in item.items("PurposeOfReferenceCodeSequence"):
            if (purpose.text("CodeValue"), purpose.text("CodingSchemeDesignator")) == _PROCESSING_ALGORITHM:
                return item.text("DeviceUID")
    return ""
