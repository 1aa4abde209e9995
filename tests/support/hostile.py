"""Some hundred damaged files, made anew each time and always the same: the kinds that field corpora for fuzzing hold.

Texts of every length, identifiers that are none, wrong value representations, sequences without end, pixel data that lie,
transfer syntaxes that lie, stray elements, broken file meta information, character sets that lie, and cut-off files.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from tests.support.corpus import CANNOT_UNDERSTAND, MISMATCH, STORED, Hostile
from tests.support.received import element

_NO_LENGTH = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0"
_PRIVATE, _PIXELS = 0x00090010, 0x7FE00010

_TEXTS = {
    0x00100010: b"PN", 0x00100020: b"LO", 0x00080050: b"SH", 0x00081030: b"LO", 0x00080070: b"LO", 0x00080080: b"LO",
    0x00100040: b"CS", 0x0008103E: b"LO", 0x00200010: b"SH", 0x00080020: b"DA", 0x00080030: b"TM", 0x00080060: b"CS",
}  # fmt: skip
_CLASS, _INSTANCE, _STUDY, _SERIES = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
_NO_UIDS = (
    b"A", b"1.2.3.", b".1.2", b"1..2", b"1." + b"1" * 63, b"../../../tmp/evil", b"/etc/passwd\0", b"1.2.3\0evil",
    b"1.2.3;$(id)", b"%s%n%x", b"\xff\xfe1.2", b"." * 64, b"1.2\\..\\x", b"\x1b[31m1.2",
)  # fmt: skip
_NO_TEXTS = (
    b"\xc3\x28", b"\xc0\xaf", b"\xed\xa0\x80", b"\xff" * 20, b"\x1b$B\x1b$B\x1b", b"\x1b(J\x1b$)C" * 9, b"\0\0\0\0",
    bytes(range(1, 32)), "‮evil‬".encode(), b"<img onerror=x>^'--;", b"a\\b\\c=d=e=f^^^^^^^^", b"=" * 60,
)  # fmt: skip
_VRS = (b"LO", b"UN", b"OB", b"US", b"??", b"\0\0", b"SQ", b"UI")

Change = Callable[["_File"], object]


@dataclass
class _File:
    """A CT image of 4 by 4, before it is written down."""

    number: int
    syntax: bytes = ExplicitVRLittleEndian.encode()
    preamble: bytes = bytes(128) + b"DICM"
    meta: dict[int, bytes] = field(default_factory=dict)  # values of group 0002, where they differ from the dataset's
    elements: dict[int, bytes] = field(default_factory=dict)  # as written; those below (0001,0000) are of group 0002
    data: bytes | None = None  # instead of them
    cut: int | None = None  # bytes of the dataset that are left

    def __post_init__(self) -> None:
        uid = f"1.2.826.7.{self.number}".encode()
        texts = {0x00080008: (b"CS", b"ORIGINAL"), _CLASS: (b"UI", CTImageStorage.encode()), _INSTANCE: (b"UI", uid)}
        texts |= {tag: (vr, b"A1") for tag, vr in _TEXTS.items() if vr in (b"PN", b"LO", b"SH", b"CS")}
        texts |= {_STUDY: (b"UI", f"1.2.826.8.{self.number // 40}".encode()), _SERIES: (b"UI", b"1.2.826.9.1")}
        numbers = {0x00280002: 1, 0x00280010: 4, 0x00280011: 4, 0x00280100: 16, 0x00280101: 16, 0x00280102: 15}
        texts |= {tag: (b"US", struct.pack("<H", value)) for tag, value in numbers.items()}
        texts |= {0x00280103: (b"US", b"\0\0"), 0x00280004: (b"CS", b"MONOCHROME2"), _PIXELS: (b"OW", bytes(32))}
        for tag, (vr, value) in texts.items():
            self.set(tag, value, vr)

    def set(self, tag: int, value: bytes, vr: bytes = b"UI") -> None:
        padding = b"\0" if vr in (b"UI", b"OB") else b" "
        self.elements[tag] = element(tag, vr, value + padding * (len(value) % 2))

    def write(self) -> bytes:
        syntax = self.syntax + b"\0" * (len(self.syntax) % 2)
        texts = {16: syntax, 2: self.elements.get(_CLASS, b"")[8:], 3: self.elements[_INSTANCE][8:]} | self.meta
        meta = {1: element(0x00020001, b"OB", b"\0\1")}
        meta |= {number: element(0x00020000 | number, b"UI", value) for number, value in texts.items()}
        meta |= {tag: item for tag, item in self.elements.items() if tag <= 0xFFFF}
        body = b"".join(item for tag, item in sorted(meta.items()) if tag)
        length = meta.get(0, element(0x00020000, b"UL", struct.pack("<I", len(body))))
        data = self.data
        if data is None:
            data = b"".join(item for tag, item in sorted(self.elements.items()) if tag > 0xFFFF)
        return self.preamble + length + body + data[: self.cut]


def cases() -> Iterator[Hostile]:
    """All of them."""
    numbers = count(1)
    for kind in (_texts, _uids, _representations, _sequences, _pixels, _syntaxes, _strays, _meta, _charsets, _ends):
        for name, status, change in kind():
            file = _File(next(numbers))
            change(file)
            yield Hostile(f"{kind.__name__[1:]}/{name}", file.write(), status)


_Case = tuple[str, int | None, Change]


def _texts() -> Iterator[_Case]:
    for tag, vr in _TEXTS.items():
        for size in (0, 1, 16, 65, 640, 1024, 1026, 65534):
            status = STORED if size <= 1024 else CANNOT_UNDERSTAND
            yield f"{tag:08x} of {size}", status, lambda f, t=tag, v=vr, n=size: f.set(t, b"9" * n, v)


def _uids() -> Iterator[_Case]:
    for tag in (_STUDY, _SERIES):
        for value in (b"", *_NO_UIDS):
            yield f"{tag:08x} {value!r}", CANNOT_UNDERSTAND, lambda f, t=tag, v=value: f.set(t, v)
        yield f"{tag:08x} of 64", STORED, lambda f, t=tag: f.set(t, b"1." + b"1" * 62)
    for value in _NO_UIDS:
        yield f"instance {value!r}", CANNOT_UNDERSTAND, lambda f, v=value: f.set(_INSTANCE, v)
        only = f"instance {value!r} in the dataset alone"
        yield only, CANNOT_UNDERSTAND, lambda f, v=value: (f.meta.update({3: b"1.2.3"}), f.set(_INSTANCE, v))
    yield "instance of another", MISMATCH, lambda f: f.meta.update({3: b"1.2.3.4"})
    yield "class of another", MISMATCH, lambda f: f.meta.update({2: b"1.2.840.10008.5.1.4.1.1.4\0"})
    yield "no class", CANNOT_UNDERSTAND, lambda f: (f.meta.update({2: b"1.2\0"}), f.elements.pop(_CLASS))


def _representations() -> Iterator[_Case]:
    for tag in (_STUDY, 0x00100020, 0x00280010, 0x00200032, 0x00280008, _PRIVATE):
        for vr in _VRS:
            # One that nobody knows has the short form; pydicom gives up on it.
            status = STORED if vr in (b"??", b"\0\0") and tag != _STUDY else None
            yield f"{tag:08x} as {vr!r}", status, lambda f, t=tag, v=vr: f.set(t, b"1.2.3.44", v)


def _sequences() -> Iterator[_Case]:
    for depth, status in (
        (1, STORED),
        (10, STORED),
        (50, STORED),
        (200, CANNOT_UNDERSTAND),
        (20000, CANNOT_UNDERSTAND),
    ):
        yield f"{depth} deep", status, lambda f, d=depth: f.elements.update({_PRIVATE: _nested(d)})
    yield "many items", STORED, lambda f: f.set(_PRIVATE, (_ITEM + bytes(4)) * 5000, b"SQ")
    opened = element(_PRIVATE, b"SQ", b"")[:8] + struct.pack("<I", _NO_LENGTH)
    item = _ITEM + struct.pack("<I", _NO_LENGTH)
    for name, data in {
        "never closed": opened,
        "item never closed": opened + item,
        "item longer than all": opened + _ITEM + struct.pack("<I", 1 << 30),
        "closed twice": opened + (_SEQUENCE_END + bytes(4)) * 2,
        "something else than items": opened + element(0x00091001, b"LO", b"ab"),
        "items that end sequences": opened + item + _SEQUENCE_END + bytes(4),
        "length with an item end": opened + item + _ITEM_END + b"\x04\0\0\0" + _SEQUENCE_END + b"\x04\0\0\0",
        "longer than the file": opened[:8] + struct.pack("<I", 0x7FFFFFFE),
    }.items():
        yield name, None, lambda f, d=data: f.elements.update({_PRIVATE: d})


def _nested(depth: int) -> bytes:
    opened = element(_PRIVATE, b"SQ", b"")[:8] + struct.pack("<I", _NO_LENGTH) + _ITEM + struct.pack("<I", _NO_LENGTH)
    return opened * depth + (_ITEM_END + bytes(4) + _SEQUENCE_END + bytes(4)) * depth


def _pixels() -> Iterator[_Case]:
    for tag, values in {
        0x00280010: (0, 1, 65535),
        0x00280011: (0, 65535),
        0x00280002: (0, 3, 255),
        0x00280100: (0, 1, 3, 24, 65535),
        0x00280101: (0, 255),
        0x00280102: (0, 255),
        0x00280103: (2, 65535),
    }.items():
        for value in values:
            packed = struct.pack("<H", value)
            yield f"{tag:08x} is {value}", STORED, lambda f, t=tag, p=packed: f.set(t, p, b"US")
    for value in (b"", b"0", b"-1", b"1000000", b"4294967296", b"abc", b"1e9", b"1\\2\\3", b"9" * 60):
        yield f"frames {value!r}", STORED, lambda f, v=value: f.set(0x00280008, v, b"IS")
    for value in (b"", b"PALETTE COLOR", b"X" * 256, b"YBR_FULL_422"):
        yield f"photometric {value[:20]!r}", STORED, lambda f, v=value: f.set(0x00280004, v, b"CS")
    for value in (b"nan\\nan\\inf", b"1e999\\0\\0", b"\\\\", b"a\\b\\c", b"0" * 2000):
        yield f"position {value[:20]!r}", STORED, lambda f, v=value: f.set(0x00200032, v, b"DS")
    for size in (0, 1, 31, 1 << 20):
        yield f"{size} bytes of pixels", STORED, lambda f, n=size: f.set(_PIXELS, bytes(n), b"OW")
    for syntax in (JPEGBaseline8Bit, JPEG2000Lossless, JPEGLSLossless, RLELossless):
        for name, data in _fragments():
            yield f"{syntax.name} {name}", STORED, lambda f, s=syntax, d=data: _encapsulate(f, s.encode(), d)


def _fragments() -> Iterator[tuple[str, bytes]]:
    end, lie = _SEQUENCE_END + bytes(4), struct.pack("<I", 0xFFFFFFF0)
    yield "no items", end
    yield "no end", _ITEM + bytes(4) + _ITEM + b"\4\0\0\0\xff\xd8\xff\xd9"
    yield "an offset table that lies", _ITEM + b"\4\0\0\0" + lie + _ITEM + b"\4\0\0\0\xff\xd8\xff\xd9" + end
    yield "a fragment that lies", _ITEM + bytes(4) + _ITEM + lie + b"\xff\xd8"
    yield (
        "a size that lies",
        _ITEM + bytes(4) + _ITEM + b"\x12\0\0\0\xff\x4f\xff\x51\0\x29\0\0" + lie + lie + b"\0\0" + end,
    )
    yield "64 segments", _ITEM + bytes(4) + _ITEM + b"\x40\0\0\0" + b"\x40\0\0\0" + lie * 15 + end


def _encapsulate(file: _File, syntax: bytes, data: bytes) -> None:
    file.syntax = syntax
    file.elements[_PIXELS] = element(_PIXELS, b"OB", b"")[:8] + struct.pack("<I", _NO_LENGTH) + data


def _syntaxes() -> Iterator[_Case]:
    def become(syntax: str, change: Callable[[bytes], bytes] = lambda data: data) -> Change:
        def changed(file: _File) -> None:
            plain = b"".join(item for tag, item in sorted(file.elements.items()) if tag > 0xFFFF)
            file.syntax, file.data = syntax.encode(), change(plain)

        return changed

    def deflate(data: bytes) -> bytes:
        packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
        return packer.compress(data) + packer.flush()

    yield "implicit that is explicit", STORED, become(ImplicitVRLittleEndian)
    yield "big endian that is little", CANNOT_UNDERSTAND, become(ExplicitVRBigEndian)
    yield "nobody's", STORED, become("1.2.3.4.5")
    yield "deflated that is not", CANNOT_UNDERSTAND, become(DeflatedExplicitVRLittleEndian)
    yield "deflated", STORED, become(DeflatedExplicitVRLittleEndian, deflate)
    yield "deflated and cut", CANNOT_UNDERSTAND, become(DeflatedExplicitVRLittleEndian, lambda data: deflate(data)[:60])
    bomb = become(DeflatedExplicitVRLittleEndian, lambda data: deflate(data + bytes(64 << 20)))
    yield "a deflate bomb", CANNOT_UNDERSTAND, bomb
    for text in ("1.2.840.10008.1.2.", "../x", "x" * 64):
        yield f"no UID {text[:20]}", CANNOT_UNDERSTAND, become(text)


def _strays() -> Iterator[_Case]:
    stray = {
        "a command group": element(0x00000100, b"US", b"\1\0"),
        "a meta group": element(0x00020010, b"UI", b"1.2.3\0"),
        "an item": _ITEM + b"\4\0\0\0abcd",
        "an item end": _ITEM_END + bytes(4),
        "a sequence end": _SEQUENCE_END + bytes(4),
        "the last tag there is": b"\xff\xff\xff\xff" + b"LO\2\0ab",
        "an odd length": element(0x00090010, b"LO", b"abc"),
        "a length of 4 GB": element(0x00090010, b"OB", b"")[:8] + struct.pack("<I", 0xFFFFFFF0),
        "a private block of nobody": element(0x000910FF, b"UN", b"\x90" * 64),
        "a shell": element(0x00090010, b"LO", b"$(touch /tmp/evil);`id`|x "),
    }
    for name, data in stray.items():
        yield f"{name} before all", None, lambda f, d=data: f.elements.update({0x00010000: d})
        yield f"{name} between", None, lambda f, d=data: f.elements.update({_PRIVATE: d})
        yield f"{name} after all", STORED, lambda f, d=data: f.elements.update({0x7FE00011: d})


def _meta() -> Iterator[_Case]:
    for number in (2, 3, 16):
        for vr in (b"ZZ", b"\0\0", b"\xff\xff", b"OB", b"SQ", b" U"):
            yield f"{number:04x} as {vr!r}", None, lambda f, n=number, v=vr: f.elements.update({n: _as_vr(f, n, v)})
    for value in (0, 1, 0xFFFFFFFF):
        length = element(0x00020000, b"UL", struct.pack("<I", value))
        yield f"length {value}", STORED, lambda f, d=length: f.elements.update({0: d})
    for name, data in {
        "none": b"",
        "short": bytes(127) + b"DICM",
        "no prefix": bytes(132),
        "late": bytes(256) + b"DICM",
    }.items():
        yield f"preamble {name}", None, lambda f, d=data: setattr(f, "preamble", d)
    for start in (b"MZ", b"\x7fELF", b"<html><script>", b"II*\0"):
        data = start.ljust(128, b"\x90") + b"DICM"
        yield f"preamble {start!r}", STORED, lambda f, d=data: setattr(f, "preamble", d)


def _as_vr(file: _File, number: int, vr: bytes) -> bytes:
    value = {2: file.elements[_CLASS][8:], 3: file.elements[_INSTANCE][8:], 16: file.syntax + b"\0"}[number]
    return struct.pack("<HH", 2, number) + vr + struct.pack("<H", len(value)) + value


def _charsets() -> Iterator[_Case]:
    for charset in (b"ISO_IR 192", b"ISO 2022 IR 87\\ISO 2022 IR 149", b"GB18030", b"nonsense", b"\\\\\\", b""):
        for value in _NO_TEXTS:
            name = f"{charset.decode()} {value[:12]!r}"
            yield name, STORED, lambda f, c=charset, v=value: (f.set(0x00080005, c, b"CS"), f.set(0x00100010, v, b"PN"))


def _ends() -> Iterator[_Case]:
    whole = _File(500).elements  # as long as those that are cut
    named = sum(len(item) for tag, item in whole.items() if tag <= _SERIES)
    header = sum(len(item) for tag, item in whole.items() if tag < 0x00280100)
    for left in (*range(0, named, 11), *range(header, sum(map(len, whole.values())), 11)):
        # Where only pixels and what describes them are missing, what came is kept as it came.
        yield f"{left} bytes", STORED if left >= header else CANNOT_UNDERSTAND, lambda f, n=left: setattr(f, "cut", n)
