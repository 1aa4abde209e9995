"""One file to one dataset: nothing is believed before the digest agrees, and no bytes can do more than be refused."""

from __future__ import annotations

import hashlib
import struct
import zlib
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

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

_PREAMBLE = 128
_LONG_FORM = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}


def read(file: InputFile) -> Dataset:
    """Reads a Part 10 file whose dataset has the digest the order names.

    Raises InputRefused: `missing` where the file is not there, `changed` where it is not the instance that was
    received, `undecodable` where it cannot be read as DICOM.
    """
    try:
        data = Path(file.path).read_bytes()
    except OSError:
        raise InputRefused(f"the file of instance {file.sop_instance_uid} is not there", code="missing") from None
    if hashlib.sha256(memoryview(data)[dataset_start(data) :]).hexdigest() != file.sha256:
        raise InputRefused(f"the file of instance {file.sop_instance_uid} is not what was received", code="changed")
    try:
        dataset = dcmread(BytesIO(data))
        uid = str(dataset.SOPInstanceUID)
    except BROKEN:
        raise InputRefused(f"instance {file.sop_instance_uid} cannot be read", code="undecodable") from None
    if uid.rstrip("\0 ") != file.sop_instance_uid:
        raise InputRefused(f"instance {file.sop_instance_uid} says it is another one", code="changed")
    return dataset


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
