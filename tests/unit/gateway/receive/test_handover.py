"""Connections that go from process to process."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from gateway.receive.handover import Channel, Kind, Message

Ends = tuple[Channel, Channel]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Both ends of one channel."""
    one, other = (Channel(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    yield one, other
    one.close()
    other.close()


def test_a_connection_goes_along(ends: Ends) -> None:
    """What is written by its peer is read by who has taken it, also when who gave it away has closed it."""
    peer, ours = socket.socketpair()
    ends[0].send(Message(kind=Kind.TAKE, number=7, text="192.0.2.1", descriptor=ours.fileno()))
    ours.close()
    taken = ends[1].receive()
    assert taken is not None
    assert (taken.kind, taken.number, taken.text) == (Kind.TAKE, 7, "192.0.2.1")
    assert not os.get_inheritable(taken.descriptor)
    with peer, socket.socket(fileno=taken.descriptor) as connection:
        peer.sendall(b"A-ASSOCIATE-RQ")
        assert connection.recv(100) == b"A-ASSOCIATE-RQ"


def test_messages_stay_apart(ends: Ends) -> None:
    """Each is received as it was sent, in order."""
    said = [
        Message(kind=Kind.ASSOCIATE, number=1, text="a" * 32),
        Message(kind=Kind.ANSWER, number=2**31, yes=True),
        Message(kind=Kind.ENDED, number=3),
    ]
    for message in said:
        ends[0].send(message)
    assert [ends[1].receive() for _ in said] == said


def test_who_reads_nothing_is_not_waited_for(ends: Ends) -> None:
    """Unless one may wait."""
    with pytest.raises(OSError):
        for _ in range(100_000):
            ends[0].send(Message(kind=Kind.TAKE), wait=False)


def test_the_other_end_is_gone(ends: Ends) -> None:
    """Nothing more comes, and nothing can be said."""
    ends[0].close()
    assert ends[1].receive() is None
    with pytest.raises(OSError):
        ends[1].send(Message(kind=Kind.ENDED))
