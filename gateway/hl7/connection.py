"""One MLLP connection, of whichever side: whole messages in and out of an asyncio stream, each step with a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import deque

from gateway.hl7.framing import Decoder, TooLarge, frame

READ_SIZE = 1 << 18  # bytes
_WRITE_SIZE = 1 << 16  # bytes for which a write deadline holds
_MOST_NOISE = 1 << 16  # bytes outside any message after which a connection is ended
_FAREWELL = 2.0  # seconds for a TLS peer to say goodbye


class MessageTooLarge(OSError):
    """The message that is being read is too large, and its end is not waited for."""


class Connection:
    """Reads and writes messages; not for two readers or two writers at once.

    A message of more than `largest` bytes is read to its end where `reads_on`, so that it can be answered; else reading
    it raises MessageTooLarge.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, largest: int, *, reads_on: bool
    ) -> None:
        self._reader, self._writer, self._reads_on = reader, writer, reads_on
        self.decoder = Decoder(largest)
        self._ready: deque[bytes | TooLarge] = deque()
        self._began = 0.0  # when the message that is being read began
        plain = writer.get_extra_info("socket")
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        writer.transport.set_write_buffer_limits(high=_WRITE_SIZE)

    @property
    def peer(self) -> str:
        """Address of the other side."""
        return str((self._writer.get_extra_info("peername") or ("unknown",))[0])

    async def read(self, *, silence: float, whole: float) -> list[bytes | TooLarge]:
        """The messages that end in the next bytes; empty at the end of the connection. Several may end in one read.

        Raises TimeoutError where no message begins within `silence` seconds, or one that has begun does not end within
        `whole` seconds; OSError where the connection breaks.
        """
        while True:
            limit = self._began + whole - time.monotonic() if self.decoder.inside else silence
            async with asyncio.timeout(max(limit, 0)):
                data = await self._reader.read(READ_SIZE)
            if not data:
                return []
            was_inside = self.decoder.inside
            found = self.decoder.feed(data)
            if self.decoder.skipped > _MOST_NOISE:
                raise ConnectionAbortedError("nothing but noise")
            if self.decoder.over and not self._reads_on:
                raise MessageTooLarge
            if self.decoder.inside and (found or not was_inside):
                self._began = time.monotonic()
            if found:
                return found

    async def read_one(self, end: float) -> bytes | TooLarge | None:
        """The next message before a moment of the monotonic clock; None at the end of the connection.

        Raises TimeoutError, OSError.
        """
        if not self._ready:
            left = max(end - time.monotonic(), 0)
            async with asyncio.timeout(left):
                self._ready.extend(await self.read(silence=left, whole=left))
        return self._ready.popleft() if self._ready else None

    async def arrived(self) -> list[bytes | TooLarge]:
        """The messages that have come whole by now, without waiting for more; half a one is kept for the next read."""
        await self._look()
        found, self._ready = [*self._ready], deque()
        while self._pending:
            was_inside = self.decoder.inside
            more = self.decoder.feed(await self._reader.read(READ_SIZE))
            if self.decoder.inside and (more or not was_inside):
                self._began = time.monotonic()
            found += more
        return found

    def usable(self, whole: float) -> bool:
        """Whether it can still be used: not ended, not flooded, and no message that began ``whole`` seconds ago goes on."""
        late = self.decoder.inside and time.monotonic() > self._began + whole
        noisy = self.decoder.skipped > _MOST_NOISE or self.decoder.over
        return not (late or noisy or self._reader.at_eof() or self._reader.exception())

    async def _look(self) -> None:
        for _ in range(2):
            await asyncio.sleep(0)  # lets the loop look at the socket

    @property
    def _pending(self) -> bytes:
        return bytes(getattr(self._reader, "_buffer", b""))

    async def settled(self) -> bool:
        """Whether nothing has come since the last answer: no byte, no end. What comes unasked belongs to no question."""
        await self._look()
        ended = self._reader.at_eof() or self._reader.exception()
        return not (self._ready or self.decoder.inside or self._pending or ended)

    async def write(self, *messages: bytes, silence: float) -> None:
        """Sends messages; raises TimeoutError where the other side takes nothing for `silence` seconds, and OSError."""
        data = memoryview(b"".join(frame(message) for message in messages))
        for start in range(0, len(data), _WRITE_SIZE):
            self._writer.write(data[start : start + _WRITE_SIZE])
            async with asyncio.timeout(silence):
                await self._writer.drain()

    async def close(self) -> None:
        """Ends the connection, whatever its state."""
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                await self._writer.wait_closed()

    def abort(self) -> None:
        """Ends the connection at once, without waiting for what is still to be written."""
        self._writer.transport.abort()
