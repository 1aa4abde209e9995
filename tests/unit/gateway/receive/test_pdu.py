"""How long a peer may take for a message: told by a clock that stands still between its bytes."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest

from gateway.domain.errors import ConnectionLost
from gateway.receive import pdu
from gateway.receive.pdu import PduType, Wire

IDLE, WHOLE, SLOWEST = 60.0, 30.0, 4096.0


class Clock:
    """What the wire takes for the time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Peer:
    """A connection whose every piece comes so many seconds after the one before."""

    def __init__(self, clock: Clock, pieces: Iterable[bytes], pause: float) -> None:
        self._clock, self._pieces, self._pause = clock, iter(pieces), pause

    def setsockopt(self, *_: object) -> None:
        """Limits of the kernel are none for a clock of ours."""

    def recv_into(self, view: memoryview) -> int:
        piece = next(self._pieces, b"")
        self._clock.now += self._pause
        view[: len(piece)] = piece
        return len(piece)


class Pauses(Peer):
    """The same with a pause of its own before each piece, and a kernel that keeps the limit it was given."""

    def __init__(self, clock: Clock, pieces: Iterable[tuple[float, bytes]]) -> None:
        self._clock, self._coming, self._limit = clock, list(pieces), 0.0

    def setsockopt(self, _level: int, option: int, value: bytes) -> None:
        if option == socket.SO_RCVTIMEO:
            seconds, micro = struct.unpack("@ll", value)
            self._limit = seconds + micro / 1e6

    def recv_into(self, view: memoryview) -> int:
        pause, piece = self._coming.pop(0)
        if pause > self._limit:
            self._clock.now += self._limit
            self._coming.insert(0, (pause - self._limit, piece))
            raise BlockingIOError
        self._clock.now += pause
        view[: len(piece)] = piece
        return len(piece)


def p_data(data: bytes, control: int) -> bytes:
    return struct.pack(">BxIIBB", 4, len(data) + 6, len(data) + 2, 1, control) + data


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(pdu, "time", made)
    return made


def wire(clock: Clock, pieces: Iterable[bytes], pause: float) -> Wire:
    peer: Any = Peer(clock, pieces, pause)
    return Wire(peer, largest=131072, idle=IDLE, whole=WHOLE, slowest=SLOWEST)


def dataset(clock: Clock, pieces: Iterable[bytes], pause: float, slowness: float = 0.0) -> int:
    """Reads one and returns how many bytes it had; ``slowness`` is ours, at each handful."""
    size = 0

    def sink(found: Sequence[memoryview]) -> None:
        nonlocal size
        size += sum(map(len, found))
        clock.now += slowness

    wire(clock, pieces, pause).dataset(1, sink)
    return size


def fragments(size: int, count: int) -> Iterator[bytes]:
    for number in range(count):
        yield p_data(bytes(size), 2 if number == count - 1 else 0)


def test_a_slow_link(clock: Clock) -> None:
    """As fast as is asked, for hours: the dataset is whole."""
    started = clock.now
    assert dataset(clock, fragments(20_000, 2000), 20_000 / SLOWEST) == 40_000_000
    assert clock.now - started > 9000


@pytest.mark.parametrize(("size", "pause"), [(1, 1.0), (0, 0.1), (1000, 1.0), (4000, 29.0), (20_000, 59.0)])
def test_too_slow(clock: Clock, size: int, pause: float) -> None:
    """Every PDU in good time, and far too little in them: the peer is cut once it has used up what it was let off."""
    started = clock.now
    with pytest.raises(ConnectionLost, match="too slow"):
        dataset(clock, fragments(size, 100_000), pause)
    assert clock.now - started + pause >= IDLE + WHOLE
    assert clock.now - started < 3 * (IDLE + WHOLE)


def test_a_command_set_that_drips(clock: Clock) -> None:
    """The same of command sets, a byte in each PDU."""
    started = clock.now
    with pytest.raises(ConnectionLost, match="too slow"):
        wire(clock, (p_data(b"\0", 1) for _ in range(100_000)), 1.0).command()
    assert clock.now - started < 2 * (IDLE + WHOLE)


def test_our_own_slowness(clock: Clock) -> None:
    """A disk that keeps us waiting is not the peer's fault."""
    assert dataset(clock, fragments(20_000, 20), 1.0, slowness=300.0) == 400_000


def test_messages_begin_anew(clock: Clock) -> None:
    """An association may last as long as it likes: each message has its own time, and the pause before it is another."""
    pieces = [piece for _ in range(50) for piece in (p_data(b"\0\0", 3), p_data(bytes(4), 2))]
    heard = wire(clock, [*pieces, struct.pack(">BxI4x", 5, 4)], 50.0)
    for _ in range(50):
        assert heard.command() == (1, b"\0\0")
        heard.dataset(1, lambda found: None)
    assert heard.command() is PduType.A_RELEASE_RQ


@pytest.mark.parametrize(("pause", "in_time"), [(IDLE - 1, True), (IDLE + 5, False)])
def test_a_short_wait_shortens_no_other(clock: Clock, pause: float, in_time: bool) -> None:
    """A PDU that came in its last seconds leaves a short limit in the kernel; the silence after it may be as long as any."""
    command, release = p_data(b"\0\0", 3), struct.pack(">BxI4x", 5, 4)
    peer: Any = Pauses(clock, [(0.0, command[:3]), (WHOLE - 2, command[3:5]), (1.0, command[5:]), (pause, release)])
    heard = Wire(peer, largest=131072, idle=IDLE, whole=WHOLE, slowest=SLOWEST)
    assert heard.command() == (1, b"\0\0")
    if in_time:
        assert heard.command() is PduType.A_RELEASE_RQ
        return
    with pytest.raises(ConnectionLost, match="silent"):
        heard.command()
