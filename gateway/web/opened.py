"""A stored file, opened: its dataset up to the pixels, which stay on the disk and are never decoded here."""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from gateway.domain.errors import NotDicom
from gateway.receive.header import DEFLATED
from gateway.web.part10 import FileMeta, read_file_meta

_FLOAT, _DOUBLE, PIXEL_DATA = 0x7FE00008, 0x7FE00009, 0x7FE00010
PIXELS = (_FLOAT, _DOUBLE, PIXEL_DATA)
_INFLATED_LIMIT = 256 * 1024 * 1024  # bytes of a deflated dataset
_UNDEFINED = 0xFFFFFFFF
_LONG_FORM = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT")


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Where the pixel data is."""

    tag: int
    at: int  # of its value in the stream
    length: int  # bytes; undefined where encapsulated

    @property
    def encapsulated(self) -> bool:
        """Whether it is a sequence of fragments (PS3.5 A.4)."""
        return self.length == _UNDEFINED


class Opened:
    """One instance: what is said before its pixels, and the way to its frames."""

    def __init__(self, meta: FileMeta, dataset: Dataset, stream: BinaryIO) -> None:
        self.meta, self.dataset, self._stream = meta, dataset, stream
        self.syntax = meta.transfer_syntax_uid
        self.pixels = self._find_pixels()

    @property
    def frames(self) -> int:
        """Number of frames; 0 where there are no pixels. Raises NotDicom where it is said in no number."""
        return 0 if self.pixels is None else max(self.number("NumberOfFrames", 1), 1)

    def number(self, keyword: str, default: int) -> int:
        """A number that is there or has a default; raises NotDicom where something else stands in its place."""
        try:
            return int(self.dataset.get(keyword) or default)
        # The parser converts a value only when it is asked for, and has no error of its own.
        except Exception as error:
            raise NotDicom(f"{keyword} is no number") from error

    def frame(self, index: int) -> bytes:
        """One frame as stored, counted from 0; an image of single bits begins with a byte of its own.

        Raises NotDicom where the pixel data does not hold it.
        """
        assert self.pixels is not None  # noqa: S101
        try:
            data = self._fragment(index) if self.pixels.encapsulated else self._native(index)
        # Broken fragments meet the parser here, which has no error of its own.
        except Exception as error:
            raise NotDicom("the pixel data cannot be read") from error
        if not data:
            raise NotDicom("the pixel data ends before this frame")
        return data

    def value(self, start: int, length: int) -> bytes:
        """Bytes of the pixel data's value."""
        assert self.pixels is not None  # noqa: S101
        self._stream.seek(self.pixels.at + start)
        return self._stream.read(length)

    def _fragment(self, index: int) -> bytes:
        assert self.pixels is not None  # noqa: S101
        self._stream.seek(self.pixels.at)
        table = self.dataset.get("ExtendedOffsetTable"), self.dataset.get("ExtendedOffsetTableLengths")
        extended = (table[0], table[1]) if table[0] and table[1] else None
        return get_frame(self._stream, index, number_of_frames=self.frames, extended_offsets=extended)

    def _native(self, index: int) -> bytes:
        assert self.pixels is not None  # noqa: S101
        bits = self._frame_bits()
        first, last = index * bits, (index + 1) * bits
        if bits <= 0 or (last + 7) // 8 > self.pixels.length:
            return b""
        data = self.value(first // 8, (last + 7) // 8 - first // 8)
        if first % 8 == 0 and bits % 8 == 0:
            return data
        number = (int.from_bytes(data, "little") >> (first % 8)) & ((1 << bits) - 1)
        return number.to_bytes((bits + 7) // 8, "little")

    def _frame_bits(self) -> int:
        one = self.dataset
        samples = int(one.get("SamplesPerPixel") or 1)
        if str(one.get("PhotometricInterpretation", "")).endswith("_422"):
            samples = 2  # Cb and Cr have half the width
        return int(one.Rows) * int(one.Columns) * samples * int(one.BitsAllocated)

    def _find_pixels(self) -> Pixels | None:
        """Reads tag, VR and length of the element at which reading of the dataset has stopped."""
        head = self._stream.read(12)
        big, implicit = self.syntax == ExplicitVRBigEndian, self.syntax == ImplicitVRLittleEndian
        order = ">" if big else "<"
        if len(head) < 8:
            return None
        group, element = struct.unpack_from(order + "HH", head)
        tag = group << 16 | element
        if tag not in PIXELS:
            return None
        here = self._stream.tell() - len(head)
        if implicit:
            return Pixels(tag=tag, at=here + 8, length=struct.unpack_from("<I", head, 4)[0])
        if head[4:6] in _LONG_FORM and len(head) == 12:
            return Pixels(tag=tag, at=here + 12, length=struct.unpack_from(order + "I", head, 8)[0])
        return None


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Opens a Part 10 file of the spool; raises NotDicom where it cannot be read, OSError where it is not there."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        with memoryview(mapped) as view:
            meta = read_file_meta(view)
        stream = _dataset_stream(file, mapped, meta)
        try:
            dataset = read_dataset(
                stream,
                is_implicit_VR=meta.transfer_syntax_uid == ImplicitVRLittleEndian,
                is_little_endian=meta.transfer_syntax_uid != ExplicitVRBigEndian,
                stop_when=lambda tag, _vr, _length: tag in PIXELS,
            )
            one = Opened(meta, dataset, stream)
        # RecursionError and MemoryError are among what the parser raises for hostile bytes.
        except Exception as error:
            raise NotDicom("the stored dataset cannot be read") from error
        yield one


def _dataset_stream(file: BinaryIO, mapped: Any, meta: FileMeta) -> BinaryIO:
    if meta.transfer_syntax_uid not in DEFLATED:
        file.seek(meta.length)
        return file
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = unpacker.decompress(mapped[meta.length :], _INFLATED_LIMIT)
    except zlib.error as error:
        raise NotDicom("the deflated dataset is broken") from error
    if unpacker.unconsumed_tail:
        raise NotDicom("the deflated dataset is too large to be looked into")
    return BytesIO(data)
