"""multipart/related: what is written is read, however the network cuts it, and nothing makes the reader fail otherwise."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.web.multipart import Malformed, MultipartReader, PartBegins, PartData, TooManyParts, write

BOUNDARY = "b0und"
# Contents that look like boundaries, and like parts of them.
contents = st.lists(
    st.lists(st.sampled_from([b"\r", b"\n", b"-", b"--", b"b0un", b"\r\n--b0un", b"\0", b"x" * 50]), max_size=12).map(
        b"".join
    ),
    min_size=1,
    max_size=5,
)


def _read(message: bytes, cuts: list[int]) -> list[bytes]:
    reader, found = MultipartReader(BOUNDARY, 100), []
    places = sorted({0, len(message), *(cut % (len(message) + 1) for cut in cuts)})
    for start, end in pairwise(places):
        for event in reader.feed(message[start:end]):
            if isinstance(event, PartBegins):
                assert event.headers == {"content-type": "application/dicom"}
                found.append(b"")
            elif isinstance(event, PartData):
                found[-1] += event.data
    reader.close()
    return found


@given(contents, st.lists(st.integers(0, 10_000), max_size=20))
def test_what_is_written_is_read(parts: list[bytes], cuts: list[int]) -> None:
    """Byte for byte, with a preamble before and an epilogue after."""
    message = b"".join(write((({"Content-Type": "application/dicom"}, (part,)) for part in parts), BOUNDARY))
    assert _read(message, cuts) == parts
    assert _read(b"preamble\r\n" + message + b"epilogue", cuts) == parts


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=10))
def test_anything_else_is_malformed(data: bytes, cuts: list[int]) -> None:
    """Whatever comes, it is read or refused."""
    try:
        _read(data, cuts)
    except Malformed:
        return
    assert b"--b0und--" in data


def test_one_byte_at_a_time() -> None:
    """The slowest sender there is."""
    message = b"".join(write([({"Content-Type": "application/dicom"}, (b"\r\n--b0un", b""))], BOUNDARY))
    assert _read(message, list(range(len(message)))) == [b"\r\n--b0un"]


def test_limits() -> None:
    """Parts, header fields and what stands before the first boundary are bounded."""
    reader = MultipartReader(BOUNDARY, 2)
    with pytest.raises(TooManyParts):
        list(reader.feed(b"--b0und\r\n\r\nx\r\n" * 3))
    with pytest.raises(Malformed, match="header fields"):
        list(MultipartReader(BOUNDARY, 2).feed(b"--b0und\r\nX: " + b"y" * 10_000))
    with pytest.raises(Malformed, match="does not begin"):
        list(MultipartReader(BOUNDARY, 2).feed(bytes(100_000)))
