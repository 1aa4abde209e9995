"""Messages to an EHR over MLLP, and the acknowledgement of exactly that message."""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time

from gateway.domain.errors import DestinationUnreachable
from gateway.domain.job import Receipt, Verdict
from gateway.report.acknowledgement import judge
from gateway.report.framing import Decoder, FrameTooLarge, frame
from gateway.report.settings import Hl7Destination
from gateway.tls import client_context

_LARGEST_ACKNOWLEDGEMENT = 1 << 20  # bytes


class MllpEhr:
    """An `Ehr` on one connection that is kept as long as nothing unexpected happens on it.

    One message at a time, also between threads. After a timeout, a wrong or a second answer the connection is closed:
    whatever still comes on it could be taken for the answer to the next message.
    """

    def __init__(self, destination: Hl7Destination) -> None:
        """Raises ConfigurationError where a TLS file cannot be used."""
        self._to = destination
        self._tls = client_context(destination.tls) if destination.tls else None
        self._connection: socket.socket | None = None
        self._lock = threading.Lock()

    def send(self, message: bytes) -> Receipt:
        """Sends one message and waits for its acknowledgement, no longer than the destination's timeout for each."""
        try:
            framed = frame(message)
        except ValueError as error:
            return Receipt(verdict=Verdict.REJECTED, answer=str(error))
        with self._lock:
            keep, receipt = self._try(framed, message)
            if not keep:
                self._close()
            return receipt

    def echo(self) -> str:
        """Opens a connection and closes it; raises DestinationUnreachable. MLLP has no message that asks for nothing."""
        started = time.monotonic()
        try:
            self._connect().close()
        except OSError as error:
            raise DestinationUnreachable(f"{self._where()}: {_say(error)}") from error
        return f"{self._where()} accepts connections, {(time.monotonic() - started) * 1000:.0f} ms"

    def close(self) -> None:
        """Gives the connection back."""
        with self._lock:
            self._close()

    def _try(self, framed: bytes, message: bytes) -> tuple[bool, Receipt]:
        """Sends and receives; says whether the connection can be kept."""
        try:
            connection, kept = self._ready_connection()
            try:
                return self._exchange(connection, framed, message)
            except ConnectionError:
                if not kept:
                    raise
            # Many receivers close after each message, and some just when the next one is under way.
            self._close()
            connection, _ = self._ready_connection()
            return self._exchange(connection, framed, message)
        except TimeoutError:
            return False, _retry(f"{self._where()}: no acknowledgement within {self._to.timeout:g} s")
        except FrameTooLarge:
            return False, _retry("the answer is too large")
        except OSError as error:
            return False, _retry(f"{self._where()}: {_say(error)}")

    def _exchange(self, connection: socket.socket, framed: bytes, message: bytes) -> tuple[bool, Receipt]:
        """Raises OSError, FrameTooLarge; ConnectionError where the peer ended the connection instead of answering."""
        connection.settimeout(self._to.timeout)
        connection.sendall(framed)
        end = time.monotonic() + self._to.timeout
        decoder = Decoder(_LARGEST_ACKNOWLEDGEMENT)
        answered = False
        while True:
            connection.settimeout(max(end - time.monotonic(), 0.001))
            data = connection.recv(65536)
            if not data and not answered:
                raise ConnectionAbortedError("the connection was closed before an acknowledgement")
            if not data:
                return False, _retry("the connection was closed within an acknowledgement")
            answered = True
            if answers := decoder.feed(data):
                ours, receipt = judge(answers[0], message)
                return ours and len(answers) == 1 and not decoder.inside, receipt
            if time.monotonic() >= end:
                raise TimeoutError

    def _ready_connection(self) -> tuple[socket.socket, bool]:
        """The kept connection if the peer has neither closed it nor said anything since, else a new one; and which."""
        if self._connection is not None and _has_news(self._connection):
            self._close()
        if self._connection is not None:
            return self._connection, True
        self._connection = self._connect()
        return self._connection, False

    def _connect(self) -> socket.socket:
        connection = socket.create_connection((self._to.host, self._to.port), timeout=self._to.timeout)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return self._tls.wrap_socket(connection, server_hostname=self._to.host) if self._tls else connection
        except OSError:
            connection.close()
            raise

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _where(self) -> str:
        return f"{self._to.host}:{self._to.port}"


def _has_news(connection: socket.socket) -> bool:
    if isinstance(connection, ssl.SSLSocket) and connection.pending():
        return True
    # poll, not select: a gateway with many associations has file numbers above 1023.
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def _say(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS fails: {error.reason}"
    return error.strerror or str(error) or "the connection broke"


def _retry(answer: str) -> Receipt:
    return Receipt(verdict=Verdict.RETRY, answer=answer)
