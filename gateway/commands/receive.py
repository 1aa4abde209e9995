"""Receiver processes of `hilum serve`: each serves connections that the gateway has accepted and counts.

One process runs Python on one core. Where there are more, several receive, and none waits for the pipeline's Python.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway import bootstrap
from gateway.commands.child import ChildProcess
from gateway.domain.ids import AssociationId
from gateway.observe.logs import configure, log
from gateway.receive.connections import Connection, Connections
from gateway.receive.handover import Channel, Kind, Message
from gateway.settings import read_settings

_PATIENCE = 10.0  # seconds for the gateway to say yes or no
_PARTING = 5.0  # seconds that connections have to end when the process stops
_GRACE = 10.0  # seconds that the process has for it
_CORES_FOR_EACH = 4  # a receiver, its senders' share of the kernel, and workers that want cores as well


def how_many(wanted: int | None) -> int:
    """Processes that receive; 1 is the gateway itself."""
    if wanted is not None:
        return wanted
    return max(1, len(os.sched_getaffinity(0)) // _CORES_FOR_EACH)


def receive(config: Path | None, inherited: int) -> None:
    """Serves what comes over the channel until that ends; the life of a receiver process."""
    configure()
    settings = read_settings(config)
    channel = Channel(socket.socket(fileno=inherited))
    ledger = bootstrap.make_ledger(settings)
    try:
        gateway = _Gateway(channel)
        spool = bootstrap.make_spool(settings)
        conversations = bootstrap.make_conversations(settings, ledger, spool, gateway)
        conversations.prepare()
        channel.send(Message(kind=Kind.READY))
        gateway.listen(conversations.begin)
    finally:
        ledger.close()


class _Gateway:
    """The gateway as a receiver process sees it. Implements `gateway.receive.conversation.AssociationLimits`."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._numbers: dict[Connection, int] = {}
        self._asked: dict[int, tuple[threading.Event, list[bool]]] = {}

    def listen(self, begin: Callable[[Connection], None]) -> None:
        """Takes connections until the gateway has gone; then ends them all."""
        while (message := self._channel.receive()) is not None:
            if message.kind is Kind.TAKE:
                self._take(message, begin)
            elif message.kind is Kind.ANSWER and message.number in self._asked:
                answered, answers = self._asked[message.number]
                answers.append(message.yes)
                answered.set()
        with self._lock:
            everyone = list(self._numbers)
        for connection in everyone:
            connection.cut()
        for connection in everyone:
            if connection.thread is not None:
                connection.thread.join(_PARTING)

    def associate(self, connection: Connection) -> bool:
        """Asks the gateway."""
        number = self._numbers[connection]
        answered, answers = self._asked[number] = threading.Event(), []
        try:
            self._channel.send(Message(kind=Kind.ASSOCIATE, number=number, text=connection.association or ""))
            answered.wait(_PATIENCE)
            return answers == [True]
        except OSError:  # the gateway has gone
            return False
        finally:
            del self._asked[number]

    def remove(self, connection: Connection) -> None:
        """Tells the gateway, the first time."""
        with self._lock:
            number = self._numbers.pop(connection, None)
        if number is None:
            return
        try:
            self._channel.send(Message(kind=Kind.ENDED, number=number))
        except OSError:
            return  # the gateway has gone, and counts no more

    def _take(self, message: Message, begin: Callable[[Connection], None]) -> None:
        connection = Connection(socket.socket(fileno=message.descriptor), message.text)
        with self._lock:
            self._numbers[connection] = message.number
        try:
            begin(connection)
        except (OSError, RuntimeError) as error:  # the peer has gone, or the machine starts no more threads
            log(stage="receive").warning("connection failed", address=connection.address, error=type(error).__name__)
            connection.socket.close()
            self.remove(connection)


class ReceiverProcess:
    """One receiver process as the gateway sees it: under watch, and started again when it dies."""

    def __init__(
        self,
        config: Path | None,
        connections: Connections,
        lost: Callable[[int, Sequence[AssociationId]], None],
    ) -> None:
        """``lost`` is told the process id and the associations of one that has died."""
        self._config, self._connections, self._lost = config, connections, lost
        self._numbers, self._lock = itertools.count(1), threading.Lock()
        self._served: dict[int, Connection] = {}
        self._child = ChildProcess()
        self._channel: Channel | None = None
        self._ready, self._stopping = False, False

    @property
    def pid(self) -> int:
        """Process id; 0 before the start."""
        return self._child.pid

    @property
    def busy(self) -> int:
        """How many connections it serves."""
        return len(self._served)

    def start(self) -> None:
        """Starts the process; it takes connections a second or two later."""
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        options = ["--config", str(self._config)] if self._config else []
        number = its.fileno()
        with its:
            self._child.start("gateway.cli", ["receiver", *options, "--inherited", str(number)], [number])
        self._channel = Channel(ours)
        listen = threading.Thread(target=self._listen, args=(self._channel, self._child.pid), daemon=True)
        listen.start()

    def take(self, connection: Connection) -> bool:
        """Gives it a connection; False where it cannot have one now."""
        if not self._ready or self._channel is None:
            return False
        number = next(self._numbers)
        with self._lock:
            self._served[number] = connection
        message = Message(kind=Kind.TAKE, number=number, text=connection.address, descriptor=connection.socket.fileno())
        try:
            self._channel.send(message, wait=False)
        except OSError:  # it is dead, or so far behind that it reads no messages
            return self._served_by(number) is None
        return True

    def revive(self) -> bool:
        """Starts it again when it has died; says whether it has."""
        if self._child.found_dead():
            log(stage="receive").error("receiver process died", exit_status=self._child.exit_status)
        if not self._child.due:
            return False
        self.start()
        return True

    def stop(self) -> None:
        """Lets it end, and ends it if it does not. Its connections have been cut before."""
        if self._channel is None:
            return
        self._stopping = True
        self._channel.close()
        self._child.wait(_GRACE)

    def _listen(self, channel: Channel, pid: int) -> None:
        while (message := channel.receive()) is not None:
            if message.kind is Kind.READY:
                self._ready = True
                log(stage="receive").info("receiver process ready", process=pid)
            elif message.kind is Kind.ENDED:
                self._end(message.number)
            elif message.kind is Kind.ASSOCIATE:
                self._answer(channel, message)
        self._ready = False
        channel.close()
        if not self._stopping:
            self._mourn(pid)

    def _answer(self, channel: Channel, message: Message) -> None:
        connection = self._served.get(message.number)
        if connection is None:
            return
        connection.association = AssociationId(message.text)
        yes = self._connections.associate(connection)
        try:
            channel.send(Message(kind=Kind.ANSWER, number=message.number, yes=yes))
        except OSError:
            return  # it has died; `_listen` finds out

    def _mourn(self, pid: int) -> None:
        """Its connections have ended with it; the gateway's share of them is closed, so that their peers see it."""
        with self._lock:
            numbers = list(self._served)
        gone = [connection for number in numbers if (connection := self._end(number)) is not None]
        self._lost(pid, [each.association for each in gone if each.association is not None])

    def _end(self, number: int) -> Connection | None:
        connection = self._served_by(number)
        if connection is not None:
            self._connections.remove(connection)
            connection.socket.close()
        return connection

    def _served_by(self, number: int) -> Connection | None:
        with self._lock:
            return self._served.pop(number, None)


class Receivers:
    """All receiver processes; the least busy one takes the next connection."""

    def __init__(self, crew: Sequence[ReceiverProcess]) -> None:
        self._crew = crew

    def take(self, connection: Connection) -> bool:
        """Gives a connection to one of them; False where none can have it."""
        return any(member.take(connection) for member in sorted(self._crew, key=lambda one: one.busy))
