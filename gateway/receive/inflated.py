"""How long a deflated dataset would be, found out without keeping it: whoever reads it later inflates all of it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from gateway.domain.errors import NotDicom

_STEP = 256 * 1024  # bytes that are inflated at a time, and thrown away


class InflatedLength:
    """Counts along while a dataset comes in; raises NotDicom where there is too much."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._inflater: zlib._Decompress | None = zlib.decompressobj(-zlib.MAX_WBITS)

    def add(self, pieces: Sequence[memoryview]) -> None:
        """The next bytes."""
        for piece in pieces:
            data: bytes | memoryview = piece
            while data and self._inflater is not None:
                data = self._step(self._inflater, data)

    def _step(self, inflater: zlib._Decompress, data: bytes | memoryview) -> bytes:
        try:
            self._left -= len(inflater.decompress(data, _STEP))
        except zlib.error:
            self._inflater = None  # broken from here on: it is kept as it came, and nobody can inflate more of it
            return b""
        if self._left < 0:
            raise NotDicom("the dataset inflates to more than dicom.max_inflated")
        if inflater.eof:
            self._inflater = None  # padding may follow
            return b""
        return inflater.unconsumed_tail
