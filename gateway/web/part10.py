"""Part 10 files (PS3.10 7.1) as they come in: where the dataset begins, and what is said about it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from gateway.domain.errors import NotDicom

_PREAMBLE = 128
_LONG_FORM = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_SOP_CLASS, _SOP_INSTANCE, _TRANSFER_SYNTAX = 0x0002, 0x0003, 0x0010
_LONGEST_META = 1 << 20  # bytes


@dataclass(frozen=True, kw_only=True)
class FileMeta:
    """What the file meta information says, and how long preamble and meta information are."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    length: int  # bytes before the dataset


def read_file_meta(data: memoryview) -> FileMeta:
    """Walks the elements of group 0002 (Group Length is not always right). Raises NotDicom."""
    if bytes(data[_PREAMBLE : _PREAMBLE + 4]) != b"DICM":
        raise NotDicom("not a DICOM file: it has no DICM prefix")
    found: dict[int, str] = {}
    at = _PREAMBLE + 4
    while bytes(data[at : at + 2]) == b"\x02\x00" and at < _LONGEST_META:
        head = 12 if bytes(data[at + 4 : at + 6]) in _LONG_FORM else 8
        if at + head > len(data):
            break
        size = struct.unpack_from("<I" if head == 12 else "<H", data, at + (8 if head == 12 else 6))[0]
        number = struct.unpack_from("<H", data, at + 2)[0]
        if number in (_SOP_CLASS, _SOP_INSTANCE, _TRANSFER_SYNTAX) and size <= 64:
            found[number] = bytes(data[at + head : at + head + size]).decode("latin-1").rstrip("\0 ")
        at += head + size
    if at > len(data) or not found.get(_TRANSFER_SYNTAX):
        raise NotDicom("the file meta information is cut off, or names no transfer syntax")
    return FileMeta(
        sop_class_uid=found.get(_SOP_CLASS, ""),
        sop_instance_uid=found.get(_SOP_INSTANCE, ""),
        transfer_syntax_uid=found[_TRANSFER_SYNTAX],
        length=at,
    )
