"""A process under watch: its death is told once, and it comes back later each time it dies young."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from gateway.commands.child import ChildProcess

_SLEEP = ("timeit", ["-n1", "-r1", "import time; time.sleep(60)"])


@pytest.fixture
def child() -> Iterator[ChildProcess]:
    made = ChildProcess()
    yield made
    made.terminate()
    made.wait(5)


def _killed(child: ChildProcess) -> None:
    os.kill(child.pid, signal.SIGKILL)
    _until(child.found_dead)


def _until(condition: Callable[[], bool], seconds: float = 10.0) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + seconds
        time.sleep(0.005)
    return time.monotonic() - began


def test_a_death_is_told_once(child: ChildProcess) -> None:
    assert not child.found_dead()
    child.start(*_SLEEP)
    assert not child.found_dead()
    assert not child.due
    _killed(child)
    assert child.exit_status == -signal.SIGKILL
    assert not child.found_dead()


def test_it_is_due_later_each_time_it_dies_young(child: ChildProcess) -> None:
    waited = []
    for _ in range(2):
        child.start(*_SLEEP)
        _killed(child)
        assert not child.due
        waited.append(_until(lambda: child.due))
    assert waited[1] > 1.5 * waited[0]


def test_one_that_runs_again_is_not_due(child: ChildProcess) -> None:
    child.start(*_SLEEP)
    first = child.pid
    _killed(child)
    _until(lambda: child.due)
    child.start(*_SLEEP)
    assert child.pid != first
    assert not child.due


def test_what_is_open_for_it_is_open_there(child: ChildProcess) -> None:
    ours, its = socket.socketpair()
    with ours, its:
        said = f"import socket; socket.socket(fileno={its.fileno()}).send(b'here')"
        child.start("timeit", ["-n1", "-r1", said], [its.fileno()])
        ours.settimeout(10)
        assert ours.recv(4) == b"here"


def test_one_that_does_not_end_is_ended(child: ChildProcess) -> None:
    ours, its = socket.socketpair()
    with ours, its:
        deaf = "import signal, socket, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        child.start(
            "timeit",
            ["-n1", "-r1", f"{deaf} socket.socket(fileno={its.fileno()}).send(b'deaf'); time.sleep(60)"],
            [its.fileno()],
        )
        ours.settimeout(10)
        assert ours.recv(4) == b"deaf"
    child.terminate()
    child.wait(0.2)
    assert child.found_dead()
    assert child.exit_status == -signal.SIGKILL
