"""multipart/related, read as it comes in and written as it goes out (RFC 2046 5.1, RFC 2387). Sans I/O."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

_HEAD_LIMIT = 8192  # bytes of the header fields of one part
_PREAMBLE_LIMIT = 65536  # bytes before the first boundary, which nobody reads
_BOUNDARY_LIMIT = 200  # characters; RFC 2046 5.1.1 allows 70, Orthanc sends 73


class Malformed(Exception):
    """The message is no multipart message, or ends in the middle of one."""


class TooManyParts(Exception):
    """More parts than anybody sends in earnest."""


@dataclass(frozen=True)
class PartBegins:
    """The header fields of a part; names in lower case."""

    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PartData:
    """A piece of a part's content."""

    data: bytes


@dataclass(frozen=True)
class PartEnds:
    """The part is complete: the boundary after it has been seen."""


Event = PartBegins | PartData | PartEnds


class MultipartReader:
    """Fed with pieces of a message, it says what they hold. Never keeps more than a boundary and a part's header fields."""

    def __init__(self, boundary: str, max_parts: int) -> None:
        """Raises Malformed for a boundary that is none."""
        if not 1 <= len(boundary) <= _BOUNDARY_LIMIT or not boundary.isascii() or not boundary.isprintable():
            raise Malformed("the boundary is missing, or is none")
        self._mark = b"\r\n--" + boundary.encode()
        self._buffer = b"\r\n"  # the first boundary needs no line break before it
        self._in_part = self._ended = False
        self._skipped = 0
        self._parts_left = max_parts

    def feed(self, data: bytes) -> Iterator[Event]:
        """What this piece brings; raises Malformed and TooManyParts."""
        self._buffer += data
        while not self._ended and (step := self._step()) is not None:
            yield from step
        if self._ended:
            self._buffer = b""  # an epilogue is ignored

    def close(self) -> None:
        """The message has ended; raises Malformed where its closing boundary has not been seen."""
        if not self._ended:
            raise Malformed("the closing boundary is missing: the request was cut off")

    def _step(self) -> list[Event] | None:
        """One step forward, or nothing until there is more data."""
        at = self._buffer.find(self._mark)
        if at < 0:
            return self._pass_on(len(self._buffer) - len(self._mark) + 1)
        if at > 0:
            return self._pass_on(at)
        return self._boundary()

    def _pass_on(self, count: int) -> list[Event] | None:
        if count <= 0:
            return None
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        if self._in_part:
            return [PartData(data)]
        self._skipped += count
        if self._skipped > _PREAMBLE_LIMIT:
            raise Malformed("the message does not begin with its boundary")
        return []

    def _boundary(self) -> list[Event] | None:
        after = self._buffer[len(self._mark) : len(self._mark) + 2]
        if len(after) < 2:
            return None
        if after == b"--":
            self._ended = True
            return self._end_part()
        line_end = self._buffer.find(b"\r\n", len(self._mark))
        padding = self._buffer[len(self._mark) : line_end if line_end >= 0 else None].rstrip(b"\r")
        if padding.strip(b" \t"):
            raise Malformed("the boundary occurs inside a part")
        head_end = self._buffer.find(b"\r\n\r\n", line_end if line_end >= 0 else len(self._mark))
        if head_end < 0:
            if len(self._buffer) > _HEAD_LIMIT:
                raise Malformed("the header fields of a part are too long")
            return None
        return self._begin_part(line_end, head_end)

    def _begin_part(self, line_end: int, head_end: int) -> list[Event]:
        if head_end - line_end > _HEAD_LIMIT:
            raise Malformed("the header fields of a part are too long")
        events = self._end_part()
        self._parts_left -= 1
        if self._parts_left < 0:
            raise TooManyParts
        fields = _fields(self._buffer[line_end + 2 : head_end])
        # An empty part is followed by its boundary at once: that line break is kept for the boundary.
        self._buffer = self._buffer[head_end + 4 :]
        self._in_part = True
        return [*events, PartBegins(fields)]

    def _end_part(self) -> list[Event]:
        ends: list[Event] = [PartEnds()] if self._in_part else []
        self._in_part = False
        return ends


def _fields(head: bytes) -> dict[str, str]:
    fields = {}
    # A line that begins with a blank goes on with the field before it (RFC 5322 2.2.3).
    for line in re.sub(rb"\r\n(?=[ \t])", b"", head).split(b"\r\n"):
        if line:
            name, colon, value = line.partition(b":")
            if not colon:
                raise Malformed("a header field of a part has no colon")
            fields[name.strip().lower().decode("latin-1")] = value.strip().decode("latin-1")
    return fields


def new_boundary() -> str:
    """A boundary that no content holds but by a chance nobody lives to see."""
    return secrets.token_hex(16)


def write(parts: Iterable[tuple[dict[str, str], Iterable[bytes]]], boundary: str) -> Iterator[bytes]:
    """A message of parts, each with its header fields and its content in pieces."""
    mark = f"--{boundary}\r\n".encode()
    for headers, content in parts:
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        yield mark + head.encode("latin-1") + b"\r\n"
        yield from content
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()
