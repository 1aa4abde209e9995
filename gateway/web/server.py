"""The HTTP server: uvicorn, with patience for nobody who holds a connection and says nothing."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.domain.errors import ServiceUnavailable
from gateway.tls import server_context
from gateway.web.settings import HttpSettings

_HANDSHAKE_SECONDS = 10.0  # for TLS
_HEAD_SECONDS = 15.0  # for a request's line and header fields, once the connection might have been closed as idle
_HEAD_LIMIT = 32 * 1024  # bytes of them
_KEEP_ALIVE = 30.0  # seconds between two requests
_STUCK_SECONDS = 60.0  # a client that takes nothing of its answer for so long is gone
_GRACE = 10  # seconds for requests at hand when we stop


def listen(settings: HttpSettings) -> socket.socket:
    """Takes the port; raises ServiceUnavailable where it cannot be had, ConfigurationError for a certificate that is none."""
    _context(settings)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(512)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        fix = "stop the other program or set http.port" if error.errno == errno.EADDRINUSE else "set http.host"
        where = f"{settings.host}:{settings.port}"
        raise ServiceUnavailable(f"cannot listen for HTTP on {where}: {error.strerror}; {fix}") from error
    return listener


def run(
    app: Any,
    listener: socket.socket,
    settings: HttpSettings,
    made: Callable[[uvicorn.Server], None] = lambda server: None,
) -> None:
    """Serves until SIGTERM or SIGINT, or until somebody stops the server that `made` is told of."""
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=settings.max_connections + 1,  # uvicorn refuses from there on
        h11_max_incomplete_event_size=_HEAD_LIMIT,
        timeout_keep_alive=int(_KEEP_ALIVE),
        timeout_graceful_shutdown=_GRACE,
    )
    config.load()
    config.ssl = _context(settings)
    server = _Server(config)
    made(server)
    server.run(sockets=[listener])


def _context(settings: HttpSettings) -> ssl.SSLContext | None:
    return server_context(settings.tls, "http.tls") if settings.tls else None


class _Server(uvicorn.Server):
    """uvicorn's, which leaves the limit of a TLS handshake to asyncio: a minute, in which a silent client is not even counted."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop: Any = asyncio.get_running_loop()
        if self.config.ssl is not None:
            loop.create_server = partial(loop.create_server, ssl_handshake_timeout=_HANDSHAKE_SECONDS)
        await super().startup(sockets)


class _Timer:
    """Ends a connection when it is not stopped in time."""

    def __init__(self, transport: asyncio.Transport, seconds: float) -> None:
        self._transport, self._seconds = transport, seconds
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self.stop()
        self._handle = asyncio.get_running_loop().call_later(self._seconds, self._transport.abort)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class _Protocol(H11Protocol):
    """uvicorn's, which by itself waits for ever for the rest of a header, and for a client that does not read."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head = _Timer(transport, _HEAD_SECONDS + _KEEP_ALIVE)
        self._stuck = _Timer(transport, _STUCK_SECONDS)
        self._head.start()
        self._idle_since = self.loop.time()
        if len(self.connections) >= (self.limit_concurrency or 0):
            self._make_room()

    @property
    def _idle(self) -> bool:
        return self.cycle is None or bool(self.cycle.response_complete)

    def _make_room(self) -> None:
        """Whoever has asked for nothing longest goes; where everybody has, uvicorn answers 503."""
        others = [one for one in self.connections if isinstance(one, _Protocol) and one is not self and one._idle]
        if others:
            oldest = min(others, key=lambda one: one._idle_since)
            oldest.transport.abort()
            self.connections.discard(oldest)  # it counts no more, though the loop has yet to tell it

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._idle:
            self._head.stop()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._idle:
            self._idle_since = self.loop.time()
            self._head.start()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck.start()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stuck.stop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head.stop()
        self._stuck.stop()
        super().connection_lost(exc)
