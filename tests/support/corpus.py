"""Files that are meant to break a reader: sent by C-STORE as they are, and what a reader other than ours makes of them.

A file goes over the wire without being understood: its file meta information says how, where it can be read at all, and the
rest of it is the dataset.
"""

from __future__ import annotations

import hashlib
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path

from pydicom import data as pydicom_data
from pydicom.filereader import read_dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, MRImageStorage

from gateway.domain.errors import InvalidIdentifier
from gateway.domain.ids import Uid
from tests.benchmarks.sender import Item, Sending

STORED, DUPLICATE, MISMATCH, CANNOT_UNDERSTAND = 0x0000, 0x0111, 0xA900, 0xC000
BROKEN_OFF = -1
"""No status: the node ends the association, or accepts none for such a thing."""

_LONG_FORM = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_NAMES = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_TEXTS = ("PatientName", "PatientID", "AccessionNumber", "StudyDescription", "SeriesDescription", "StudyID", "Modality",
          "Manufacturer", "InstitutionName", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName", "ProtocolName",
          "BodyPartExamined", "IssuerOfPatientID", "PatientBirthDate", "SeriesNumber")  # fmt: skip
_LONGEST_TEXT = 1024  # characters of a text of the header that is taken
_HEADER = 0x00280100  # where the part of a dataset ends that decides


@dataclass(frozen=True)
class Hostile:
    """A file as it lies on a disk, and the status it must get; None where another reader has to be asked."""

    name: str
    data: bytes
    status: int | None = None

    @cached_property
    def item(self) -> Item:
        """What a sender makes of it that reads nothing but the file meta information."""
        start, meta = _file_meta(self.data)
        return Item(
            meta.get(2, str(MRImageStorage)),
            meta.get(3, "1.2.826.9"),
            meta.get(16, str(ExplicitVRLittleEndian)),
            [self.data[start:]],
        )

    @property
    def dataset(self) -> bytes:
        """What follows the file meta information."""
        return b"".join(self.item.pieces)

    @property
    def sha256(self) -> str:
        """Of the dataset."""
        return hashlib.sha256(self.dataset).hexdigest()


def _file_meta(data: bytes) -> tuple[int, dict[int, str]]:
    """Where the dataset begins, and the elements of group 0002 by their number. Reads what it can."""
    if data[128:132] != b"DICM":
        return 0, {}
    found: dict[int, str] = {}
    at = 132
    while data[at : at + 2] == b"\2\0" and at + 12 <= len(data):
        number, wide = struct.unpack_from("<H", data, at + 2)[0], data[at + 4 : at + 6] in _LONG_FORM
        size = struct.unpack_from("<I" if wide else "<H", data, at + (8 if wide else 6))[0]
        at += 12 if wide else 8
        if at + size > len(data):
            break
        if size <= 64:
            found[number] = data[at : at + size].decode("latin-1").rstrip("\0 ")
        at += size
    return at, found


def files_in(folder: Path) -> Iterator[Hostile]:
    """Every DICOM file, or what calls itself so, in a folder and the folders in it."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix.lower() in (".dcm", ".dic", ".dicom", ".raw", ""):
            yield Hostile(str(path.relative_to(folder)), path.read_bytes())


def files_of_pydicom() -> Iterator[Hostile]:
    """The files that pydicom ships for its own tests: broken, truncated and odd ones among them."""
    folder = Path(str(pydicom_data.__file__)).parent
    for name in ("test_files", "charset_files"):
        yield from files_in(folder / name)


def store(port: int, file: Hostile) -> int:
    """The status of the C-STORE-RSP, or BROKEN_OFF."""
    item, plain = file.item, (str(MRImageStorage), str(ExplicitVRLittleEndian))
    try:
        try:
            sending = Sending(port, "HILUM", item.sop_class_uid, item.transfer_syntax_uid)
        except (ValueError, TypeError):  # the sender's own library refuses to ask for such a context
            sending = Sending(port, "HILUM", *plain)
    except ConnectionError:
        return BROKEN_OFF
    try:
        status = sending.store(item)
        sending.release()
    except ConnectionError:
        return BROKEN_OFF
    finally:
        sending.close()
    return status


def expected(file: Hostile) -> set[int]:
    """The answers that are right: what the file says itself, or what pydicom finds in it.

    Another file with the same SOP Instance UID may have come before: what is stored may also be a duplicate.
    """
    if file.status is not None:
        return {file.status}
    found = _by_pydicom(file)
    if found is None or not all(found[name] for name in _NAMES):
        return {CANNOT_UNDERSTAND, BROKEN_OFF}
    said = (file.item.sop_class_uid, file.item.sop_instance_uid)
    try:
        uids = [Uid(uid) for uid in (*said, file.item.transfer_syntax_uid, *(found[name] for name in _NAMES))]
    except InvalidIdentifier:
        return {CANNOT_UNDERSTAND, BROKEN_OFF}
    if any(len(found.get(name, "")) > _LONGEST_TEXT for name in _TEXTS):
        return {CANNOT_UNDERSTAND}
    return {STORED, DUPLICATE} if tuple(uids[:2]) == (uids[3], uids[4]) else {MISMATCH}


def _by_pydicom(file: Hostile) -> dict[str, str] | None:
    """Texts of the header, by their keyword; None where pydicom cannot read so far."""
    syntax, data = UID(file.item.transfer_syntax_uid), file.dataset
    implicit, little = (True, True) if syntax == "1.2.840.10008.1.2" else (False, syntax != "1.2.840.10008.1.2.2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if syntax == DeflatedExplicitVRLittleEndian:
                data = zlib.decompress(data, -zlib.MAX_WBITS)
            read = read_dataset(
                BytesIO(data), implicit, little, bytelength=len(data), stop_when=lambda tag, _vr, _size: tag >= _HEADER
            )
            found = {item.keyword: str(item.value or "") for item in read if item.VR != "SQ"}
            return dict.fromkeys(_NAMES, "") | found
        except Exception:  # noqa: BLE001 - it has no error of its own
            return None
