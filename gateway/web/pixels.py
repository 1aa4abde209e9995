"""Decoded pixels, from a process of the workers' side: the gateway itself never decodes any."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gateway.observe.logs import log
from gateway.web.problem import Refused

_COMMAND = (sys.executable, "-P", "-m", "workers.render")
_TIME = 60.0  # seconds for one order, starting included
_PATIENCE = 30.0  # seconds to wait for one of the processes
_ORDERS_EACH = 500  # then a process is replaced: whatever a decoder leaks ends with it
_ENVIRONMENT = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH")

DECODABLE = frozenset({
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203",
})  # fmt: skip
"""Transfer syntaxes that the workers' decoders know (pylibjpeg with its plugins)."""


class PixelTool:
    """A few decoding processes, started when they are needed and ended when they fail, run late or have done enough."""

    def __init__(self, scratch: Path, *, processes: int = 2, command: Sequence[str] = _COMMAND) -> None:
        self._scratch, self._command = scratch, command
        self._idle: queue.LifoQueue[_Process | None] = queue.LifoQueue()
        for _ in range(processes):
            self._idle.put(None)
        self._all: set[_Process] = set()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def run(self, do: str, file: Path, **order: Any) -> Iterator[Path]:
        """The file that an order gives, for the time of the block.

        Raises Refused: 406 where it cannot be done with these pixels, 503 where all processes are busy.
        """
        if find_spec("workers") is None:
            raise Refused(HTTPStatus.NOT_ACCEPTABLE, "decoding is not installed here (hilum[worker])")
        with tempfile.NamedTemporaryFile(dir=self._scratch) as output:
            self._do({"do": do, "file": str(file), "output": output.name, **order})
            yield Path(output.name)

    def close(self) -> None:
        """Ends all processes."""
        with self._lock:
            for process in self._all:
                process.end()
            self._all.clear()

    def _do(self, order: dict[str, Any]) -> None:
        try:
            process = self._idle.get(timeout=_PATIENCE)
        except queue.Empty:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "too many pictures at once", {"Retry-After": "5"}) from None
        try:
            process = process or self._start()
            said = process.ask(order, _TIME)
            if said is None or process.orders >= _ORDERS_EACH:
                self._forget(process)
                process = None
        finally:
            self._idle.put(process)
        if said is None:
            log(stage="web").warning("decoding process lost", do=order["do"])
            raise Refused(
                HTTPStatus.NOT_ACCEPTABLE,
                "the pixel data cannot be decoded: it is too large, takes too long or is broken",
            )
        if "refused" in said:
            raise Refused(HTTPStatus.NOT_ACCEPTABLE, str(said["refused"]))

    def _start(self) -> _Process:
        process = _Process(self._command)
        with self._lock:
            self._all.add(process)
        return process

    def _forget(self, process: _Process) -> None:
        process.end()
        with self._lock:
            self._all.discard(process)


class _Process:
    """One process and the pipe to it."""

    def __init__(self, command: Sequence[str]) -> None:
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment |= {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            env=environment,
        )
        self.orders = 0

    def ask(self, order: dict[str, Any], seconds: float) -> dict[str, Any] | None:
        """What it answers; None where it dies, runs late or says something that is no answer."""
        assert self._process.stdin and self._process.stdout  # noqa: S101
        self.orders += 1
        end, said = time.monotonic() + seconds, b""
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            with selectors.DefaultSelector() as selector:
                selector.register(self._process.stdout, selectors.EVENT_READ)
                while not said.endswith(b"\n"):
                    if not selector.select(max(end - time.monotonic(), 0)):
                        return None
                    piece = os.read(self._process.stdout.fileno(), 65536)
                    if not piece:
                        return None
                    said += piece
            answer = json.loads(said)
        except (OSError, ValueError):
            return None
        return answer if isinstance(answer, dict) else None

    def end(self) -> None:
        """Kills it, and whatever it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, 9)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()
