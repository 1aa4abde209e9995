"""How a connection goes from the process that listens to one that receives, and what the two say about it.

Over a pair of unix sockets that keeps messages apart (SOCK_SEQPACKET); the descriptor goes along (SCM_RIGHTS). Who listens counts
for all: it says yes or no to every association.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum

_HEAD = struct.Struct("=BI?")
_LONGEST = 1024  # bytes


class Kind(IntEnum):
    """What a message is about."""

    READY = 1  # I can receive
    TAKE = 2  # this connection is yours; text is the address of the peer
    ASSOCIATE = 3  # may this connection have an association? text is the association's id
    ANSWER = 4  # it may, or not
    ENDED = 5  # this connection is over


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message about one connection."""

    kind: Kind
    number: int = 0  # of the connection
    yes: bool = False
    text: str = ""
    descriptor: int = -1


class Channel:
    """One end. Any thread may send, one receives."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def send(self, message: Message, *, wait: bool = True) -> None:
        """Raises OSError where the other end is gone, or, unless it may wait, has too much to read."""
        data = _HEAD.pack(message.kind, message.number, message.yes) + message.text.encode("ascii")
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("@i", message.descriptor))
        # Not `socket.send_fds`: it forgets the flags (CPython 3.11).
        self._end.sendmsg([data], [rights] if message.descriptor >= 0 else [], 0 if wait else socket.MSG_DONTWAIT)

    def receive(self) -> Message | None:
        """The next message; None when the other end is gone."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._end, _LONGEST, 1)
        except OSError:
            return None
        if not data:
            return None
        kind, number, yes = _HEAD.unpack_from(data)
        descriptor = -1
        if descriptors:
            descriptor = descriptors[0]
            os.set_inheritable(descriptor, False)
        text = data[_HEAD.size :].decode("ascii")
        return Message(kind=Kind(kind), number=number, yes=yes, text=text, descriptor=descriptor)

    def close(self) -> None:
        """Wakes whoever receives, at both ends."""
        with suppress(OSError):  # the other end went first
            self._end.shutdown(socket.SHUT_RDWR)
        self._end.close()
