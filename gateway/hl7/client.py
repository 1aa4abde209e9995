"""Sends messages over MLLP, and takes the acknowledgement of exactly that message."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from gateway.domain.errors import HilumError
from gateway.domain.inbound import ApplicationAnswer
from gateway.domain.job import Receipt, Verdict
from gateway.hl7.acknowledgement import Acknowledgement, judge, read_application_answer
from gateway.hl7.answer import ACCEPTED, answers
from gateway.hl7.connection import READ_SIZE, Connection, MessageTooLarge
from gateway.hl7.framing import TooLarge
from gateway.hl7.head import attempt_head

_LARGEST_ACKNOWLEDGEMENT = 1 << 20  # bytes

Hear = Callable[[ApplicationAnswer], None]
"""Makes durable what an application says, later than at once, of a message that was accepted; raises HilumError."""


class MllpClient:
    """One connection that is kept as long as nothing unexpected happens on it; one message at a time.

    After a timeout, a wrong or a second answer the connection is closed: whatever still comes on it could be taken for
    the answer to the next message. Only an application acknowledgement, which names its message, may come whenever it
    likes where there is somebody to hear it.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        timeout: float,
        tls: ssl.SSLContext | None = None,
        deferred: bool = False,
        hear: Hear | None = None,
    ) -> None:
        """``deferred``: application acknowledgements are not waited for. ``hear`` is called with those that come between
        two messages, or while the answer to another message is waited for."""
        self._deferred, self._hear = deferred, hear
        self.host, self.port, self.timeout, self._tls = host, port, timeout, tls
        self._connection: Connection | None = None

    async def send(self, message: bytes) -> Receipt:
        """Sends one message and waits for its acknowledgement, no longer than the timeout for each step."""
        try:
            keep, receipt = await self._attempt(message)
        except TimeoutError:
            keep, receipt = False, _retry(f"{self.where}: no acknowledgement within {self.timeout:g} s")
        except MessageTooLarge:
            keep, receipt = False, _retry("the answer is too large")
        except OSError as error:
            keep, receipt = False, _retry(f"{self.where}: {say(error)}")
        except ValueError as error:  # a framing byte in it
            return Receipt(verdict=Verdict.REJECTED, answer=str(error))
        if not keep:
            await self.close()
        return receipt

    @property
    def connected(self) -> bool:
        """Whether a connection is kept."""
        return self._connection is not None

    async def listen(self) -> None:
        """Hears what has come on the kept connection since the last answer, without waiting for more."""
        connection = self._connection
        if connection is None or self._hear is None:
            return
        try:
            good = all([await self._heard(connection, one) for one in await connection.arrived()])
        except (OSError, TimeoutError):
            good = False
        if not (good and connection.usable(self.timeout)):
            await self.close()

    async def connect(self) -> None:
        """Opens a connection; raises OSError, TimeoutError."""
        async with asyncio.timeout(self.timeout):
            reader, writer = await asyncio.open_connection(
                self.host,
                self.port,
                ssl=self._tls,
                server_hostname=self.host if self._tls else None,
                limit=READ_SIZE,
                **({"ssl_handshake_timeout": self.timeout} if self._tls else {}),
            )
        self._connection = Connection(reader, writer, _LARGEST_ACKNOWLEDGEMENT, reads_on=False)

    async def close(self) -> None:
        """Gives the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
            await connection.close()

    @property
    def where(self) -> str:
        """For people."""
        return f"{self.host}:{self.port}"

    async def _attempt(self, message: bytes) -> tuple[bool, Receipt]:
        """Sends and receives; says whether the connection can be kept."""
        connection, kept = await self._ready_connection()
        try:
            return await self._exchange(connection, message)
        except ConnectionError:
            if not kept:
                raise
        # Many receivers close after each message, and some just when the next one is under way.
        await self.close()
        connection, _ = await self._ready_connection()
        return await self._exchange(connection, message)

    async def _ready_connection(self) -> tuple[Connection, bool]:
        """The kept connection if the peer has neither closed it nor said anything since, else a new one; and which."""
        await self.listen()
        if self._connection is not None and (self._hear or await self._connection.settled()):
            return self._connection, True
        await self.close()
        await self.connect()
        assert self._connection is not None  # noqa: S101
        return self._connection, False

    async def _exchange(self, connection: Connection, message: bytes) -> tuple[bool, Receipt]:
        """Raises OSError, TimeoutError; ConnectionError where the peer ended the connection instead of answering."""
        await connection.write(message, silence=self.timeout)
        end = time.monotonic() + self.timeout
        head = attempt_head(message)
        answer = await self._answer(connection, end, head.control_id if head else "")
        if answer is None:
            raise ConnectionAbortedError("the connection was closed before an acknowledgement")
        acknowledgement, receipt = judge(answer, message)
        if acknowledgement is None:
            return False, receipt
        awaited = head.application_acknowledgement if head else ""
        accepted = acknowledgement.is_accept and receipt.verdict is Verdict.ACCEPTED
        if accepted and awaited in ("AL", "SU", "ER") and not self._deferred:
            return await self._application(connection, message, receipt, awaited)
        return await self._settled(connection), receipt

    async def _application(
        self, connection: Connection, message: bytes, receipt: Receipt, awaited: str
    ) -> tuple[bool, Receipt]:
        """The application acknowledgement after an accept acknowledgement (2.9.3).

        The message is in safe storage already and is not to be sent again because of silence; what the application says
        within the timeout decides. It may come later, on another connection, or never.
        """
        end = time.monotonic() + self.timeout
        found: Acknowledgement | None = None
        keep = False
        head = attempt_head(message)
        try:
            answer = await self._answer(connection, end, head.control_id if head else "")
            if answer is not None:
                found, said = judge(answer, message)
                await self._accept(connection, answer)
        except TimeoutError:
            keep = self._hear is not None  # what comes later is heard
        except OSError:
            pass  # of a connection that has broken there is nothing to hear
        if found is None:
            silent = "" if awaited == "ER" else "; no application acknowledgement"
            return keep, replace(receipt, answer=f"{receipt.answer}{silent}")
        return await self._settled(connection), replace(said, answer=f"CA, then {said.answer}")

    async def _settled(self, connection: Connection) -> bool:
        """Whether the connection can be kept: where what comes unasked is heard, whatever comes."""
        return self._hear is not None or await connection.settled()

    async def _accept(self, connection: Connection, answer: bytes) -> None:
        """An application acknowledgement is a message too, and may ask for its own accept acknowledgement."""
        head = attempt_head(answer)
        if head is not None and head.accept_acknowledgement in ("AL", "SU"):
            accept_only = replace(head, application_acknowledgement="NE")
            now = datetime.now(UTC)
            await connection.write(*answers(ACCEPTED, accept_only, now, head.control_id[:19]), silence=self.timeout)

    async def _answer(self, connection: Connection, end: float, named: str) -> bytes | None:
        """The next answer; what is said of other messages than the one ``named`` is heard, and passed over."""
        while True:
            answer = await connection.read_one(end)
            if isinstance(answer, TooLarge):
                raise MessageTooLarge
            if answer is None or not await self._heard(connection, answer, named):
                return answer

    async def _heard(self, connection: Connection, answer: bytes | TooLarge, named: str = "") -> bool:
        """Whether it is an application acknowledgement of another message than the one ``named``. It is durable before it
        is acknowledged."""
        found = None if self._hear is None or isinstance(answer, TooLarge) else read_application_answer(answer)
        if found is None or found.control_id == named:
            return False
        assert self._hear is not None  # noqa: S101
        assert isinstance(answer, bytes)  # noqa: S101
        try:
            self._hear(found)
        except HilumError as error:
            raise ConnectionAbortedError(f"an application's answer cannot be kept: {error.message}") from error
        await self._accept(connection, answer)
        return True


def say(error: OSError) -> str:
    """What is wrong with a connection, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS fails: {error.reason}"
    # asyncio puts the address into strerror, and has an error without number where several addresses were tried.
    return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error) or "it broke"


def _retry(answer: str) -> Receipt:
    return Receipt(verdict=Verdict.RETRY, answer=answer)
