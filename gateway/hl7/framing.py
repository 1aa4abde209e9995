"""MLLP framing without any socket (HL7 "Minimal Lower Layer Protocol" release 1): <VT> message <FS> <CR>."""

from __future__ import annotations

from dataclasses import dataclass

START, END, CARRIAGE_RETURN = b"\x0b", b"\x1c", b"\r"
LARGEST_MESSAGE = 64 * 1024 * 1024  # bytes
_BEGINNING = 8192  # bytes of a message that is too large which are kept, so that it can be answered by its MSH-10


@dataclass(frozen=True)
class TooLarge:
    """A message that had more bytes than a message may have; it was read to its end and dropped."""

    beginning: bytes
    size: int  # bytes


def frame(message: bytes) -> bytes:
    """A message as it goes over the wire; raises ValueError where it holds a framing byte."""
    if START in message or END in message:
        raise ValueError("the message holds a framing byte")
    return START + message + END + CARRIAGE_RETURN


class Decoder:
    """Takes bytes as they come and gives whole messages.

    Tolerant where nothing can be confused: bytes before VT are skipped, the CR after FS may be missing, a second VT
    starts anew (the first message was broken off). Cost is linear in the bytes fed, in pieces of whatever size; memory
    is never more than the largest message, also for one without an end.
    """

    def __init__(self, largest: int = LARGEST_MESSAGE) -> None:
        self._largest = largest
        self._buffer: bytearray | None = None  # None: outside a message
        self._size = 0  # of the message so far, also of what was dropped
        self.skipped = 0  # bytes outside a message since the last one

    @property
    def inside(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._buffer is not None

    @property
    def over(self) -> bool:
        """Whether the message that has begun is too large already."""
        return self._size > self._largest

    def feed(self, data: bytes) -> list[bytes | TooLarge]:
        """The messages that end in this data."""
        messages: list[bytes | TooLarge] = []
        *ended, rest = data.split(END)
        for piece in ended:
            self._take(piece)
            if self._buffer is not None:
                messages.append(self._finish(self._buffer))
        self._take(rest)
        return messages

    def _finish(self, buffer: bytearray) -> bytes | TooLarge:
        found = TooLarge(bytes(buffer), self._size) if self.over else bytes(buffer)
        self._buffer, self._size, self.skipped = None, 0, 0
        return found

    def _take(self, piece: bytes) -> None:
        before, start, body = piece.rpartition(START)
        if start:
            self._buffer, self._size = bytearray(), 0
        elif self._buffer is None:
            self.skipped += len(piece.strip(CARRIAGE_RETURN))
            return  # outside a message: the CR after FS, or garbage
        else:
            body = before + body
        assert self._buffer is not None  # noqa: S101
        self._size += len(body)
        self._buffer += body[:_BEGINNING] if self.over else body
        if self.over and len(self._buffer) > _BEGINNING:
            del self._buffer[_BEGINNING:]
