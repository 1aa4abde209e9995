"""The embedded broker and the doorbell, with a real server that dies, freezes or is not there."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from gateway.domain.bell import queue_of
from gateway.domain.errors import ServiceUnavailable
from gateway.domain.ids import JobId
from gateway.domain.job import Priority
from gateway.submit.broker import CeleryBroker, broker_state
from gateway.submit.embedded import EmbeddedBroker

pytestmark = pytest.mark.neighbour

QUEUE = queue_of("any", Priority.ROUTINE)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    made = EmbeddedBroker(tmp_path)
    made.start()
    yield made
    made.stop()


def client(broker: EmbeddedBroker) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(broker._socket), socket_timeout=5)


def wait(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Looks until it is so, and fails when it has not become so in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not become so"
        time.sleep(0.02)


def test_the_server_is_what_the_doorbell_needs(broker: EmbeddedBroker) -> None:
    """Append-only, nothing evicted, a new enough version, on a private socket and on no port."""
    state = broker_state(broker.url)
    assert (state["policy"], state["appendonly"]) == ("noeviction", True)
    assert int(str(state["version"]).split(".")[0]) >= 7
    assert client(broker).config_get("port") == {"port": "0"} or client(broker).config_get("port") == {b"port": b"0"}
    assert broker._socket.stat().st_mode & 0o077 == 0
    assert broker._directory.stat().st_mode & 0o077 == 0


def test_data_outlives_stop_and_kill(broker: EmbeddedBroker) -> None:
    """What is queued is there after a stop, and after a kill once it is on disk; revive says that it had died."""
    client(broker).rpush("queue", "one")
    broker.stop()
    assert broker.pid == 0
    broker.start()
    client(broker).rpush("queue", "two")
    wait(lambda: any(b"two" in file.read_bytes() for file in broker._directory.rglob("*.aof")))
    assert not broker.revive()
    first = broker.pid
    os.kill(first, signal.SIGKILL)
    wait(lambda: broker.pid == 0)
    assert broker.revive()
    assert broker.pid not in (0, first)
    assert client(broker).lrange("queue", 0, -1) == [b"one", b"two"]


def test_a_socket_that_was_removed_is_made_again(broker: EmbeddedBroker) -> None:
    """A living server that nobody can reach is no server."""
    broker._socket.unlink()
    assert broker.revive()
    assert client(broker).ping()


def test_a_file_that_cannot_be_read_stops_nothing(broker: EmbeddedBroker) -> None:
    """The ledger is the truth: what a crash made unreadable is put aside, and the server starts empty."""
    client(broker).rpush("queue", "x" * 1000)
    broker.stop()
    for file in (broker._directory / "appendonlydir").glob("*.incr.aof"):
        file.write_bytes(b"*9\r\nthis is no protocol\r\n" * 50)
    broker.start()
    assert client(broker).ping()
    assert list(broker._directory.glob("unreadable-*"))


@pytest.mark.parametrize("name", ["a b", "a%20b", "ü?q#f", "x" * 120])
def test_directories_of_every_name(tmp_path: Path, name: str) -> None:
    """Blanks, signs of URLs and names too long for a socket work for the server, the doorbell and the doctor."""
    made = EmbeddedBroker(tmp_path / name)
    assert made.url == EmbeddedBroker(tmp_path / name).url
    made.start()
    try:
        bell = CeleryBroker(made.url)
        bell.ring(JobId("0" * 32), QUEUE)
        wait(lambda: client(made).llen(QUEUE) == 1)
        assert bell.failed_rings == 0
        assert broker_state(made.url)["appendonly"]
        bell.close()
    finally:
        made.stop()


KILLED = """
import os, pathlib, signal, sys
from gateway.submit.embedded import EmbeddedBroker
broker = EmbeddedBroker(pathlib.Path(sys.argv[1]))
broker.start()
print(broker.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_gateway_takes_its_server_along(tmp_path: Path) -> None:
    """The next gateway starts at once, waits for the old server to go, and has a socket of its own; three times."""
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, check=False
        )
        old = int(done.stdout)
        made = EmbeddedBroker(tmp_path)
        made.start()
        wait(lambda old=old: not _alive(old))
        assert client(made).ping()
        assert not made.revive()
        made.stop()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except OSError:
        return False


def test_two_at_once(broker: EmbeddedBroker, tmp_path: Path) -> None:
    """A second broker on the same directory is refused with a sentence, and the first goes on."""
    second = EmbeddedBroker(tmp_path)
    with pytest.raises(ServiceUnavailable, match="another broker is running"):
        second.start(timeout=0.3)
    assert client(broker).ping()


def test_a_place_that_cannot_be_used(tmp_path: Path) -> None:
    """A file in the directory's place is one sentence."""
    (tmp_path / "broker").write_text("")
    with pytest.raises(ServiceUnavailable, match="cannot be started in"):
        EmbeddedBroker(tmp_path).start()


def test_a_server_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that ends at once is one sentence that says where to look, and nothing is left running."""
    program = tmp_path / "redis-server"
    program.write_text("#!/bin/sh\necho v=9.9\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    made = EmbeddedBroker(tmp_path)
    with pytest.raises(ServiceUnavailable, match=r"did not start; see .*server\.log"):
        made.start()
    assert made.pid == 0


# --- the doorbell ----------------------------------------------------------------------------------------------------


def rings_quickly(bell: CeleryBroker, times: int = 1500) -> None:
    """More rings than can wait in line, each in no time."""
    slowest = 0.0
    for number in range(times):
        started = time.perf_counter()
        bell.ring(JobId(f"{number:032x}"), QUEUE)
        slowest = max(slowest, time.perf_counter() - started)
    assert slowest < 0.05


def closes_quickly(bell: CeleryBroker) -> None:
    started = time.monotonic()
    bell.close()
    assert time.monotonic() - started < 5


def test_a_ring_is_a_message_with_the_job_id(broker: EmbeddedBroker) -> None:
    """One message for each ring, and only an id in it."""
    bell = CeleryBroker(broker.url)
    for number in range(3):
        bell.ring(JobId(f"{number:032x}"), QUEUE)
    wait(lambda: client(broker).llen(QUEUE) == 3)
    message = str(client(broker).lrange(QUEUE, 0, 0)[0])
    assert "hilum.run" in message
    assert len(message) < 2000
    closes_quickly(bell)


def test_nobody_there(tmp_path: Path) -> None:
    """With no broker at all ringing and closing take no time, and lost rings are counted."""
    bell = CeleryBroker(f"redis+socket://{tmp_path}/nothing.sock?virtual_host=0")
    rings_quickly(bell)
    wait(lambda: bell.failed_rings > 0)
    closes_quickly(bell)


def test_a_host_that_swallows_everything() -> None:
    """A port that accepts and is silent holds up the bell's own thread only."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        bell = CeleryBroker(f"redis://127.0.0.1:{listener.getsockname()[1]}/0")
        rings_quickly(bell)
        closes_quickly(bell)


def test_a_killed_broker_and_its_return(broker: EmbeddedBroker) -> None:
    """After the server was killed rings are lost in no time; after its return they arrive again."""
    bell = CeleryBroker(broker.url)
    bell.ring(JobId("1" * 32), QUEUE)
    wait(lambda: client(broker).llen(QUEUE) == 1)
    os.kill(broker.pid, signal.SIGKILL)
    wait(lambda: broker.pid == 0)
    rings_quickly(bell, 20)
    wait(lambda: bell.failed_rings > 0)
    broker.revive()
    client(broker).delete(QUEUE)

    def arrives() -> bool:
        bell.ring(JobId("2" * 32), QUEUE)
        return bool(client(broker).llen(QUEUE))

    wait(arrives)
    closes_quickly(bell)


def test_a_frozen_broker(broker: EmbeddedBroker) -> None:
    """While the server is stopped in its tracks ringing and closing take no time."""
    bell = CeleryBroker(broker.url)
    bell.ring(JobId("1" * 32), QUEUE)
    wait(lambda: client(broker).llen(QUEUE) == 1)
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        rings_quickly(bell)
        closes_quickly(bell)
    finally:
        os.kill(broker.pid, signal.SIGCONT)


def test_the_bell_is_one_thread(broker: EmbeddedBroker) -> None:
    """Closing ends it."""
    bell = CeleryBroker(broker.url)
    closes_quickly(bell)
    assert not [thread for thread in threading.enumerate() if thread is bell._thread]
