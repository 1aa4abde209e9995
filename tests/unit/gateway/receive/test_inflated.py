"""The length of deflated data is counted without keeping it, whatever the data is."""

from __future__ import annotations

import random
import zlib

import pytest

from gateway.domain.errors import NotDicom
from gateway.receive.inflated import InflatedLength


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def pieces(data: bytes, size: int) -> list[list[memoryview]]:
    return [[memoryview(data)[start : start + size]] for start in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 50, 100_000])
def test_at_the_limit(size: int) -> None:
    """Exactly as much as is allowed is fine, one byte more is not, however it is cut up."""
    data = deflated(random.Random(0).randbytes(1000) + bytes(1_000_000))
    exact = InflatedLength(1_001_000)
    for piece in pieces(data, size):
        exact.add(piece)
    short = InflatedLength(1_000_999)
    with pytest.raises(NotDicom, match="inflates to more"):
        for piece in pieces(data, size):
            short.add(piece)


@pytest.mark.parametrize("data", [deflated(b"x" * 1000) + b"\0", deflated(b"") + bytes(5000), b"\xff" * 1000, b""])
def test_padding_and_what_is_not_deflated(data: bytes) -> None:
    """What follows the end, and what cannot be inflated, is nobody's length, and the count ends."""
    length = InflatedLength(1000)
    for piece in pieces(data, 100):
        length.add(piece)
