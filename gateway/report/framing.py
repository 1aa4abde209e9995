"""MLLP framing without any socket (HL7 "Minimal Lower Layer Protocol" release 1): <VT> message <FS> <CR>."""

from __future__ import annotations

from gateway.domain.errors import PeerError

START, END, CARRIAGE_RETURN = b"\x0b", b"\x1c", b"\r"
LARGEST_MESSAGE = 64 * 1024 * 1024  # bytes


class FrameTooLarge(PeerError):
    """More bytes without an end of message than a message may have."""


def frame(message: bytes) -> bytes:
    """A message as it goes over the wire; raises ValueError where it holds a framing byte."""
    if START in message or END in message:
        raise ValueError("the message holds a framing byte")
    return START + message + END + CARRIAGE_RETURN


class Decoder:
    """Takes bytes as they come and gives whole messages.

    Tolerant where nothing can be confused: bytes before VT are skipped, the CR after FS may be missing, a second VT
    starts anew (the first message was broken off). Cost is linear in the bytes fed, in pieces of whatever size.
    """

    def __init__(self, largest: int = LARGEST_MESSAGE) -> None:
        self._largest = largest
        self._buffer: bytearray | None = None  # None: outside a message

    @property
    def inside(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._buffer is not None

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that end in this data; raises FrameTooLarge."""
        messages = []
        *ended, rest = data.split(END)
        for piece in ended:
            self._take(piece)
            if self._buffer is not None:
                messages.append(bytes(self._buffer))
                self._buffer = None
        self._take(rest)
        return messages

    def _take(self, piece: bytes) -> None:
        before, start, body = piece.rpartition(START)
        if start:
            self._buffer = bytearray()
        elif self._buffer is None:
            return  # outside a message: the CR after FS, or garbage
        else:
            body = before + body
        self._buffer += body
        if len(self._buffer) > self._largest:
            self._buffer = None
            raise FrameTooLarge(f"no end of message within {self._largest} bytes")
