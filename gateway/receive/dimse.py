"""The DICOM node: the port, and who is let in. What is said there is the business of `Conversations`."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Sequence

from gateway.domain.errors import ServiceUnavailable
from gateway.observe.logs import log
from gateway.receive.connections import Connection, Connections
from gateway.receive.conversation import Conversations
from gateway.receive.receiver import Receiver
from gateway.receive.service import DimseService
from gateway.receive.settings import DicomSettings

_BACKLOG = 128
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_BREATH = 0.1  # seconds between two tries to accept when the machine has no room
_PARTING = 5.0  # seconds that connections have to end when the node stops


class DimseNode:
    """Listens for associations until stopped."""

    def __init__(self, receiver: Receiver, settings: DicomSettings, services: Sequence[DimseService] = ()) -> None:
        self._settings = settings
        self.connections = Connections(settings)
        self._conversations = Conversations(receiver, settings, services, self.connections)
        self._hand_over: Callable[[Connection], bool] = lambda _: False
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._stopping = threading.Event()
        self._log = log(stage="receive")

    @property
    def port(self) -> int:
        """The port it listens on."""
        if self._listener is None:
            raise ServiceUnavailable("the DICOM node is not listening")
        return int(self._listener.getsockname()[1])

    @property
    def accepting(self) -> bool:
        """Whether it takes connections."""
        return self._acceptor is not None and self._acceptor.is_alive()

    def start(self) -> None:
        """Begins to listen; raises ServiceUnavailable when the address cannot be used, ConfigurationError for bad TLS files."""
        settings = self._settings
        self._conversations.prepare()
        try:
            listener = _listen(settings.host, settings.port)
        except OSError as error:
            message = f"cannot listen for DICOM on {settings.host}:{settings.port}: {error.strerror}"
            fix = "stop the other program or set dicom.port" if error.errno == errno.EADDRINUSE else "set dicom.host"
            raise ServiceUnavailable(f"{message}; {fix}") from error
        self._listener = listener
        self._stopping.clear()
        self._acceptor = threading.Thread(target=self._accept, args=(listener,), name="dicom node", daemon=True)
        self._acceptor.start()
        self._log.info("listening", ae_title=settings.ae_title, host=settings.host, port=self.port)

    def hand_over_to(self, take: Callable[[Connection], bool]) -> None:
        """From now on connections are offered to another process first; ``take`` says whether it has taken one."""
        self._hand_over = take

    def stop(self) -> None:
        """Stops listening and ends every association; what was acknowledged is kept, what was on its way is not."""
        if self._listener is None:
            return
        self._stopping.set()
        listener, self._listener = self._listener, None
        listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        listener.close()
        everyone = self.connections.everyone()
        for connection in everyone:
            connection.cut()
        for connection in everyone:
            if connection.thread is not None:
                connection.thread.join(_PARTING)

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                accepted, address = listener.accept()
            except OSError as error:
                if self._stopping.is_set():
                    return  # closed by `stop`
                # No room, or an error of the one connection that came, of which accept(2) names many: the next may be well.
                self._log.error("cannot accept", error=error.strerror)
                if error.errno in _NO_ROOM:
                    self.connections.make_room()
                self._stopping.wait(_BREATH)
                continue
            self._begin(Connection(accepted, str(address[0])))

    def _begin(self, connection: Connection) -> None:
        self.connections.add(connection)
        try:
            if not self._hand_over(connection):
                self._conversations.begin(connection)
        except (OSError, RuntimeError) as error:  # the peer has gone, or the machine starts no more threads
            self._log.warning("connection failed", address=connection.address, error=type(error).__name__)
            self.connections.remove(connection)
            connection.socket.close()


def _listen(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
