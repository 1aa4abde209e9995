"""A request's body for a thread that works on it: in pieces, unpacked, with every limit on size and time."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from http import HTTPStatus

import anyio
from starlette.requests import ClientDisconnect, Request

from gateway.web.problem import Refused

_SLOWEST = 16 * 1024  # bytes a second that a working link brings at least, on average
_PIECE = 1 << 18  # bytes that are unpacked at once: a bomb is noticed before it fills the memory
_GZIP = 16 + zlib.MAX_WBITS  # what zlib wants to hear
_DRAIN = 1 << 22  # bytes of a refused body that are still read, so that the client comes to hear the answer
_DRAIN_SECONDS = 2.0


class Body:
    """Iterated in a worker thread of anyio; raises Refused where a limit is passed or the client has gone."""

    def __init__(self, request: Request, *, limit: int, idle: float) -> None:
        """`limit` in bytes, packed and unpacked; `idle` in seconds. Raises Refused for what can be told at once."""
        self._stream = request.stream()
        self._limit, self._idle = limit, idle
        self._unpack = _unpacker(request.headers.get("content-encoding", "identity"))
        self._taken = 0
        length = request.headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > limit:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_large(limit))

    def __iter__(self) -> Iterator[bytes]:
        started, received = time.monotonic(), 0
        while piece := anyio.from_thread.run(self._next):
            received += len(piece)
            if received > self._limit:  # packed, too: members that hold nothing could follow each other without end
                raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_large(self._limit))
            self._count(len(piece) if self._unpack is None else 0)
            if time.monotonic() - started > 2 * self._idle + received / _SLOWEST:
                raise Refused(HTTPStatus.REQUEST_TIMEOUT, "the request comes too slowly")
            yield from (piece,) if self._unpack is None else self._unpacked(piece)
        if self._unpack is not None and not self._unpack.eof:
            raise Refused(HTTPStatus.BAD_REQUEST, "the gzip data is cut off")

    async def drain(self) -> None:
        """Reads on for a moment after a refusal, and forgets what comes."""
        left = _DRAIN
        with anyio.move_on_after(_DRAIN_SECONDS):
            try:
                async for piece in self._stream:
                    left -= len(piece)
                    if left < 0:
                        return
            except ClientDisconnect:
                return

    async def _next(self) -> bytes:
        try:
            with anyio.fail_after(self._idle):
                return await anext(self._stream, b"")
        except TimeoutError:
            raise Refused(HTTPStatus.REQUEST_TIMEOUT, "the request stopped coming") from None
        except ClientDisconnect:
            raise Refused(HTTPStatus.BAD_REQUEST, "the request was cut off") from None

    def _unpacked(self, piece: bytes) -> Iterator[bytes]:
        assert self._unpack is not None  # noqa: S101
        while piece:
            if self._unpack.eof:  # another member follows (RFC 1952 2.2)
                self._unpack = zlib.decompressobj(wbits=_GZIP)
            try:
                out = self._unpack.decompress(piece, _PIECE)
            except zlib.error:
                raise Refused(HTTPStatus.BAD_REQUEST, "the gzip data is broken") from None
            self._count(len(out))
            yield out
            piece = self._unpack.unused_data or self._unpack.unconsumed_tail

    def _count(self, size: int) -> None:
        self._taken += size
        if self._taken > self._limit:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_large(self._limit))


def _unpacker(encoding: str) -> zlib._Decompress | None:
    kind = encoding.strip().lower()
    if kind in ("", "identity"):
        return None
    if kind in ("gzip", "x-gzip"):
        return zlib.decompressobj(wbits=_GZIP)
    raise Refused(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Content-Encoding must be gzip or identity", {"Accept-Encoding": "gzip"}
    )


def _too_large(limit: int) -> str:
    return f"the request is larger than {limit >> 20} MiB (http.max_request_mib)"
