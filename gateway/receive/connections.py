"""Who is connected: associations, and connections that have not asked for one yet. Each kind has its own limits."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, field

from gateway.domain.ids import AssociationId
from gateway.receive.settings import DicomSettings


@dataclass(eq=False)
class Connection:
    """One connection and the thread that serves it; none where another process does."""

    socket: socket.socket
    address: str
    thread: threading.Thread | None = field(default=None)
    association: AssociationId | None = field(default=None)  # once it has asked for one

    def cut(self) -> None:
        """Wakes its thread, which then finds the connection ended. Anybody may call this."""
        try:
            # Of the socket itself: a TLS socket would forget its state under the hands of its thread.
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)
        except OSError:
            return  # it has ended by itself


class Connections:
    """Counts them. Where too many wait without asking, the one that has waited longest makes room."""

    def __init__(self, settings: DicomSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._waiting: dict[Connection, None] = {}  # in the order they came
        self._associated: set[Connection] = set()

    def add(self, connection: Connection) -> None:
        """A peer has connected."""
        with self._lock:
            self._waiting[connection] = None
            same = [item for item in self._waiting if item.address == connection.address]
            if len(same) > self._settings.max_unassociated_per_address:
                self._drop(same[0])
            elif len(self._waiting) > self._settings.max_unassociated:
                self._drop(next(iter(self._waiting)))

    def associate(self, connection: Connection) -> bool:
        """The peer gets an association unless there are too many, in all or from its address."""
        with self._lock:
            same = sum(item.address == connection.address for item in self._associated)
            most = self._settings.max_associations_per_address
            if len(self._associated) >= self._settings.max_associations or (most and same >= most):
                return False
            self._waiting.pop(connection, None)
            self._associated.add(connection)
            return True

    def remove(self, connection: Connection) -> None:
        """The connection has ended."""
        with self._lock:
            self._waiting.pop(connection, None)
            self._associated.discard(connection)

    def make_room(self) -> None:
        """The machine has no room for another: the one that has waited longest goes."""
        with self._lock:
            if self._waiting:
                self._drop(next(iter(self._waiting)))

    def everyone(self) -> list[Connection]:
        """All of them."""
        with self._lock:
            return [*self._waiting, *self._associated]

    def _drop(self, connection: Connection) -> None:
        del self._waiting[connection]
        connection.cut()
