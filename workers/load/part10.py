"""One file to one dataset: nothing is believed before the digest agrees, and no bytes can do more than be refused."""

from __future__ import annotations

import hashlib
import struct
import zlib
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.charset import convert_encodings, decode_bytes, default_encoding
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gateway.domain.errors import InputRefused
from gateway.domain.messages import InputFile

BROKEN = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,  # a length that no file could have
    OSError,
    RuntimeError,  # RecursionError and NotImplementedError among them
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What parsers and decoders raise on bytes they were not made for; they have no error class of their own."""

PLAIN = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
"""Transfer syntaxes whose stored values lie in a file as they lie in memory."""

_IDENTITY = ("PatientName", "PatientID", "IssuerOfPatientID", "AccessionNumber", "StudyID", "ReferringPhysicianName")
_DELIMITERS = b"\\\\^="  # between values, components and groups of names (PS3.5 6.1.2.5.3)
_UNREADABLE = "\ufffd"
_PREAMBLE = 128
_LONG = 4096  # bytes of a value that is not copied when a file is parsed
_PIXEL_DATA = 0x7FE00010
_LONG_FORM = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}


def read(file: InputFile) -> FileDataset:
    """Reads a Part 10 file whose dataset has the digest the order names.

    Raises InputRefused: `missing` where the file is not there, `changed` where it is not the instance that was
    received, `undecodable` where it cannot be read as DICOM. Where stored values lie as in memory, Pixel Data is a view of the
    file's bytes.
    """
    try:
        data = Path(file.path).read_bytes()
    except OSError:
        raise InputRefused(f"the file of instance {file.sop_instance_uid} is not there", code="missing") from None
    if hashlib.sha256(memoryview(data)[dataset_start(data) :]).hexdigest() != file.sha256:
        raise InputRefused(f"the file of instance {file.sop_instance_uid} is not what was received", code="changed")
    try:
        dataset = _parsed(data)
        uid = str(dataset.SOPInstanceUID)
    except BROKEN:
        raise InputRefused(f"instance {file.sop_instance_uid} cannot be read", code="undecodable") from None
    if uid.rstrip("\0 ") != file.sop_instance_uid:
        raise InputRefused(f"instance {file.sop_instance_uid} says it is another one", code="changed")
    return dataset


def _parsed(data: bytes) -> FileDataset:
    """Parses without copying pixel data: it takes longer than everything else in a header."""
    dataset = dcmread(BytesIO(data), defer_size=_LONG)
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax == DeflatedExplicitVRLittleEndian:  # places are not those in the file
        dataset = dcmread(BytesIO(data))
    for element in list(dataset.values()):
        if isinstance(element, RawDataElement) and element.value is None and element.length:
            view = memoryview(data)[element.value_tell : element.value_tell + element.length]
            kept = view if element.tag == _PIXEL_DATA and syntax in PLAIN else bytes(view)
            dataset[element.tag] = element._replace(value=kept)  # type: ignore[arg-type]
    dataset.buffer = None  # the header outlives its file's bytes
    _settle_character_set(dataset)
    return dataset


def _settle_character_set(dataset: FileDataset) -> None:
    """Whose identity cannot be read in the character set that it declares counts as declaring none.

    Reading it all the same puts one and the same sign for whatever cannot be read: two patients could become one. Undeclared
    bytes are passed on as they are.
    """
    declared = dataset.get("SpecificCharacterSet")
    found = [dataset.get_item(keyword) for keyword in _IDENTITY] if declared else []
    values = [one.value for one in found if isinstance(one, RawDataElement) and one.value and not one.value.isascii()]
    if not values:
        return
    encodings = convert_encodings(declared)
    for value in values:
        if _UNREADABLE in decode_bytes(value, encodings, set(_DELIMITERS)) and _UNREADABLE.encode() not in value:
            del dataset.SpecificCharacterSet
            implicit, little = dataset.original_encoding
            dataset.set_original_encoding(implicit, little, default_encoding)
            return


def dataset_start(data: bytes) -> int:
    """Where the dataset begins: after preamble, prefix and the elements of group 0002 (PS3.10 7.1).

    The elements are walked, since Group Length (0002,0000) is not always right. Raises InputRefused (`undecodable`).
    """
    if data[_PREAMBLE : _PREAMBLE + 4] != b"DICM":
        raise InputRefused("a file is not DICOM: it has no DICM prefix", code="undecodable")
    at = _PREAMBLE + 4
    while data[at : at + 2] == b"\x02\x00":
        representation = data[at + 4 : at + 6]
        head = 12 if representation in _LONG_FORM else 8
        if at + head > len(data):
            raise InputRefused("a file ends in its file meta information", code="undecodable")
        form = "<I" if head == 12 else "<H"
        at += head + struct.unpack_from(form, data, at + (8 if head == 12 else 6))[0]
    if at > len(data):
        raise InputRefused("a file ends in its file meta information", code="undecodable")
    return at
