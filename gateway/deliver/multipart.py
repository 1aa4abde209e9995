"""multipart/related with DICOM in it (RFC 2387, PS3.18 8.7.2). Pure, but for reading the files to send."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

_CHUNK = 1 << 20
_PART_HEADER = b"\r\nContent-Type: application/dicom\r\n\r\n"
_BOUNDARY = re.compile(r'boundary="?([^";,]{1,70})"?', re.IGNORECASE)


def body_length(sizes: Sequence[int], boundary: str) -> int:
    """Bytes that `body` will give for files of these sizes."""
    mark = len(f"--{boundary}")
    return sum(mark + len(_PART_HEADER) + size + 2 for size in sizes) + mark + len(b"--\r\n")


def body(paths: Sequence[Path], boundary: str) -> Iterator[bytes]:
    """The request body, file by file, never more than a chunk in memory."""
    mark = f"--{boundary}".encode()
    for path in paths:
        yield mark + _PART_HEADER
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
        yield b"\r\n"
    yield mark + b"--\r\n"


def first_part(content_type: str, content: bytes) -> bytes:
    """Payload of the first part of a multipart answer; raises ValueError where there is none."""
    found = _BOUNDARY.search(content_type)
    if not found:
        raise ValueError("not a multipart answer")
    mark = b"--" + found[1].encode()
    start = content.find(mark)
    head_end = content.find(b"\r\n\r\n", start)
    end = content.find(b"\r\n" + mark, head_end + 4)
    if start < 0 or head_end < 0 or end < 0:
        raise ValueError("broken multipart answer")
    return content[head_end + 4 : end]
