"""Takes HL7 v2 messages over MLLP; each is acknowledged when its handler has made it durable."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from gateway.domain.errors import ServiceUnavailable
from gateway.hl7.answer import Decision, Reply, answers
from gateway.hl7.charset import codec_of
from gateway.hl7.connection import READ_SIZE, Connection
from gateway.hl7.framing import TooLarge
from gateway.hl7.head import Head, MessageUnreadable, attempt_head, decode, read_head
from gateway.hl7.settings import MllpListener
from gateway.observe.logs import log
from gateway.tls import server_context

_MOST_AT_ONCE = 256  # messages that are made durable together
_HANDSHAKE = 5.0  # seconds for TLS
_LATER = Reply(Decision.ERROR, "the message could not be stored now, send it again", "207")


@dataclass(frozen=True, slots=True)
class Received:
    """A message whose MSH can be read, and whose bytes are what MSH-18 says."""

    raw: bytes  # without framing
    head: Head
    peer: str  # address it came from
    default_codec: str = "utf-8"

    def text(self) -> str:
        """The message as text."""
        return decode(self.raw, self.head, self.default_codec)


Handler = Callable[[Sequence[Received]], Sequence[Reply]]
"""Makes messages durable and says what to answer, one reply for each. It is called in one thread of its own with all that
has come meanwhile, so that one transaction can serve them all; where it raises, each message is offered to it alone, and
one for which it raises again is answered AE or CE: the sender will repeat it."""


class MllpServer:
    """Listens in a thread of its own from `start` to `stop`."""

    def __init__(self, settings: MllpListener, handler: Handler) -> None:
        """Raises ConfigurationError where a TLS file cannot be used."""
        self._settings, self._handler = settings, handler
        self._codec = codec_of(settings.charset) or "utf-8"
        self._tls = server_context(settings.tls, "tls") if settings.tls else None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="mllp", daemon=True)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="mllp-store")
        self._waiting: asyncio.Queue[tuple[Received, asyncio.Future[Reply]]] = asyncio.Queue()
        self._idle_since: dict[Connection, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = log(stage="hl7")
        self.port = settings.port

    def start(self) -> None:
        """Begins to listen; raises ServiceUnavailable where the port cannot be had."""
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        except OSError as error:
            self.stop()
            where = f"{self._settings.host}:{self._settings.port}"
            raise ServiceUnavailable(f"cannot listen for HL7 on {where}: {error.strerror or error}") from error

    def stop(self) -> None:
        """Ends every connection; what is not acknowledged by then will be sent again by its sender."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._writer.shutdown()
        if not self._loop.is_closed():
            self._loop.close()

    @property
    def waiting(self) -> int:
        """How many messages wait to be stored."""
        return self._waiting.qsize()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(
            self._serve,
            self._settings.host,
            self._settings.port,
            ssl=self._tls,
            limit=READ_SIZE,
            **({"ssl_handshake_timeout": _HANDSHAKE} if self._tls else {}),
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._keep(self._loop.create_task(self._store()))

    async def _end(self) -> None:
        if hasattr(self, "_server"):
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._keep(task)
        connection = Connection(reader, writer, self._settings.largest_message, reads_on=True)
        if not self._settings.admits(connection.peer):
            self._log.warning("HL7 connection refused: not among the peers", peer=connection.peer)
            connection.abort()
            return
        self._make_room()
        self._idle_since[connection] = time.monotonic()
        try:
            await self._converse(connection)
        except asyncio.CancelledError:
            pass  # only `stop` cancels; what is done about it is below
        except (OSError, TimeoutError) as error:
            self._log.info("HL7 connection ended", peer=connection.peer, reason=str(error) or "deadline")
        finally:
            self._idle_since.pop(connection, None)
            connection.abort()

    def _make_room(self) -> None:
        """With every place taken, the connection that has been silent longest goes: it may be reopened at any time."""
        if len(self._idle_since) >= self._settings.max_connections:
            oldest = min(self._idle_since, key=self._idle_since.__getitem__)
            self._log.warning("too many HL7 connections: the longest silent one is ended", peer=oldest.peer)
            self._idle_since.pop(oldest)
            oldest.abort()

    async def _converse(self, connection: Connection) -> None:
        settings = self._settings
        while frames := await connection.read(silence=settings.idle_timeout, whole=settings.message_timeout):
            pending = [self._take(frame, connection.peer) for frame in frames]
            now = datetime.now().astimezone()
            replies = [
                answer
                for head, reply in pending
                for answer in answers(
                    reply if isinstance(reply, Reply) else await reply, head, now, secrets.token_hex(8).upper()
                )
            ]
            if replies:
                await connection.write(*replies, silence=settings.message_timeout)
            if connection in self._idle_since:
                self._idle_since[connection] = time.monotonic()

    def _take(self, frame: bytes | TooLarge, peer: str) -> tuple[Head | None, Reply | asyncio.Future[Reply]]:
        """Reads MSH and hands the message on to be stored, or says at once what is wrong with it."""
        if isinstance(frame, TooLarge):
            self._log.warning("HL7 message too large", peer=peer, size=frame.size)
            limit = self._settings.largest_message
            return attempt_head(frame.beginning), Reply(Decision.REJECTED, f"more than {limit} bytes", "207")
        try:
            head = read_head(frame)
            received = Received(frame, head, peer, self._codec)
            received.text()
        except MessageUnreadable as error:
            self._log.warning("HL7 message rejected", peer=peer, reason=error.message)
            return attempt_head(frame), Reply(Decision.REJECTED, error.message, error.code)
        stored: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting.put_nowait((received, stored))
        return head, stored

    async def _store(self) -> None:
        """Gives the handler everything that waits, again and again."""
        while True:
            waiting = [await self._waiting.get()]
            while len(waiting) < _MOST_AT_ONCE and not self._waiting.empty():
                waiting.append(self._waiting.get_nowait())
            batch = [received for received, _ in waiting]
            replies = await self._loop.run_in_executor(self._writer, self._handle, batch)
            for (_, stored), reply in zip(waiting, replies, strict=True):
                if not stored.done():  # its connection may be gone
                    stored.set_result(reply)

    def _handle(self, batch: Sequence[Received]) -> Sequence[Reply]:
        try:
            replies = self._handler(batch)
            if len(replies) == len(batch):
                return replies
            raise ValueError("not one reply for each message")
        # Whatever goes wrong with a message, its sender has an answer, and those that came with it are not lost for it.
        except Exception as error:  # noqa: BLE001
            if len(batch) > 1:
                return [reply for received in batch for reply in self._handle([received])]
            self._log.exception("HL7 message could not be stored", error=type(error).__name__)
            return [_LATER]
