"""Walks over an encoded dataset in place (PS3.5 section 7): nothing is decoded, copied or, where it is skipped, touched."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from typing import NamedTuple

from gateway.domain.errors import NotDicom

_UNDEFINED = 0xFFFFFFFF
_DEEPEST = 64  # sequences in sequences; the deepest objects of the standard have fewer than 10
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_SHORT = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
     b"ST", b"TM", b"UI", b"UL", b"US"}
)  # fmt: skip


class CutOff(NotDicom):
    """The dataset ends inside an element."""


class Element(NamedTuple):
    """A value as it stands in the dataset."""

    vr: bytes  # two letters; empty where the encoding has none
    value: memoryview  # of a sequence of undefined length, without its delimiter
    encoding: Encoding


class Encoding:
    """How a dataset is written."""

    def __init__(self, *, implicit: bool, little: bool) -> None:
        self.implicit = implicit
        self.order = order = "<" if little else ">"
        self._implicit, self._explicit = struct.Struct(order + "HHI"), struct.Struct(order + "HH2sH")
        self._length = struct.Struct(order + "I")

    def elements(
        self, data: memoryview, wanted: Collection[int], *, beyond: int = 0xFFFFFFFF
    ) -> tuple[dict[int, Element], bool]:
        """The wanted elements that stand before tag ``beyond``, and whether that was reached.

        Raises CutOff where the data ends inside an element, and NotDicom where it is no dataset.
        """
        found: dict[int, Element] = {}
        place, end = 0, len(data)
        while place + 8 <= end:
            tag, vr, start, length = self._header(data, place)
            if tag >= beyond:
                return found, True
            inner = _IMPLICIT if vr == b"UN" else self  # PS3.5 6.2.2 note 2
            if length == _UNDEFINED:
                place = inner._after_sequence(data, start, 0)
                stop = place - 8
            else:
                place = stop = start + length
                if stop > end:
                    raise CutOff("the dataset ends inside an element")
            if tag in wanted:
                found[tag] = Element(vr, data[start:stop], inner)
        return found, False

    def items(self, sequence: memoryview) -> Iterator[memoryview]:
        """The items of a sequence's value."""
        place = 0
        while place + 8 <= len(sequence):
            tag, length = self._item(sequence, place)
            if tag != _ITEM:
                raise NotDicom("a sequence holds something else than items")
            after = self._after_item(sequence, place + 8, 0) if length == _UNDEFINED else place + 8 + length
            yield sequence[place + 8 : after - 8 if length == _UNDEFINED else after]
            place = after

    def _header(self, data: memoryview, place: int) -> tuple[int, bytes, int, int]:
        """Tag, VR, and place and length of the value of the element that stands here."""
        if self.implicit:
            group, number, length = self._implicit.unpack_from(data, place)
            return group << 16 | number, b"", place + 8, length
        group, number, vr, length = self._explicit.unpack_from(data, place)
        if vr in _LONG:
            if place + 12 > len(data):
                raise CutOff("the dataset ends inside an element")
            return group << 16 | number, vr, place + 12, self._length.unpack_from(data, place + 8)[0]
        return group << 16 | number, vr, place + 8, length

    def _item(self, data: memoryview, place: int) -> tuple[int, int]:
        if place + 8 > len(data):
            raise CutOff("the dataset ends inside a sequence")
        group, number, length = self._implicit.unpack_from(data, place)
        return group << 16 | number, length

    def _after_sequence(self, data: memoryview, place: int, depth: int) -> int:
        if depth > _DEEPEST:
            raise NotDicom("sequences are nested absurdly deep")
        while True:
            tag, length = self._item(data, place)
            place += 8
            if tag == _SEQUENCE_END:
                return place
            if tag != _ITEM:
                raise NotDicom("a sequence holds something else than items")
            place = self._after_item(data, place, depth) if length == _UNDEFINED else place + length

    def _after_item(self, data: memoryview, place: int, depth: int) -> int:
        while True:
            tag, _ = self._item(data, place)
            if tag == _ITEM_END:
                return place + 8
            _, vr, start, length = self._header(data, place)
            inner = _IMPLICIT if vr == b"UN" else self
            place = inner._after_sequence(data, start, depth + 1) if length == _UNDEFINED else start + length


_IMPLICIT, _EXPLICIT = Encoding(implicit=True, little=True), Encoding(implicit=False, little=True)
_BIG_ENDIAN = Encoding(implicit=False, little=False)


def encoding_of(data: memoryview, syntax: str) -> Encoding:
    """The encoding of a transfer syntax, or the one the data is in: some senders name one and write the other."""
    if syntax == "1.2.840.10008.1.2.2":
        return _BIG_ENDIAN
    vr = bytes(data[4:6])
    if syntax == "1.2.840.10008.1.2":
        return _EXPLICIT if vr in _SHORT or vr in _LONG else _IMPLICIT
    return _EXPLICIT if vr.isalpha() else _IMPLICIT
