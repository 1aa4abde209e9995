"""Runs a model in a process of its own, which may die, hang or eat all memory: each end becomes one clear sentence."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gateway.domain.errors import (
    BundleInvalid,
    HilumError,
    ModelCrashed,
    ModelDenied,
    ModelError,
    ModelOutOfMemory,
    ModelTimedOut,
)
from gateway.domain.messages import JobOrder, Outcome, from_json, to_json
from workers.sandbox.room import Room
from workers.scratch import clear, nameless, taken, threads

TICK = 1.0
"""Seconds between two calls of `on_wait`."""

LONGEST_ANSWER = 16 * 2**20
"""Bytes of one line from the child; more is no answer."""

CHILD = (sys.executable, "-P", "-m", "workers.child")
"""The command line of a child; the number of its parent and its room are added."""

_MOMENT = 2.0  # seconds
_THREADS = 2048  # more than any library starts, far fewer than a machine has room for
_STAGE = re.compile("[a-z]{1,32}")
_SAID = 500  # characters of a sentence

ENVIRONMENT = ("PATH", "LANG", "TZ", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "HILUM_TORCH_THREADS")
ENVIRONMENT_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "OMP_", "MKL_", "TORCH_", "PYTORCH_")
"""What a model's process is told of the environment: no credentials of ledger, broker or spool."""

_KINDS: dict[str, type[HilumError]] = {
    kind.__name__: kind for kind in (BundleInvalid, ModelCrashed, ModelDenied, ModelError, ModelOutOfMemory)
}


class ModelProcess:
    """One child process that is started when needed and kept while it is healthy and the bundle stays the same.

    Not for several threads at once. The child dies when the thread that called `start`, or first called `run`, ends, so
    a warm one needs a caller that lives on (prctl(2), PR_SET_PDEATHSIG).
    """

    def __init__(
        self, room: Room, on_stage: Callable[[str], None] = lambda stage: None, *, command: Sequence[str] = CHILD
    ) -> None:
        self._room, self._on_stage, self._command = room, on_stage, command
        self._process: subprocess.Popen[bytes] | None = None
        self._bundle: object = None
        self._stage = "start"
        self._buffer = b""

    @property
    def pid(self) -> int:
        """Process id of the child; 0 where there is none, or it is dead."""
        return self._process.pid if self._process is not None and _alive(self._process) else 0

    def start(self) -> None:
        """Starts the child ahead of the first order, so that its libraries are loaded when one comes."""
        if self._process is None:
            self._empty(None)
            self._process, self._bundle = _start(self._command, self._room), None

    def run(self, order: JobOrder, *, timeout: float, on_wait: Callable[[], None] = lambda: None) -> Outcome:
        """Has one job done; ``timeout`` in seconds includes starting the process and opening the bundle.

        ``on_wait`` is called about every second; what it raises ends the child and passes through. Raises ModelTimedOut,
        ModelCrashed, ModelDenied, ModelOutOfMemory or BundleInvalid. After any of these the child is gone, with
        everything it started.
        """
        deadline = time.monotonic() + timeout
        try:
            process = self._child(order)
            Path(order.output_dir).mkdir(parents=True, exist_ok=True)
            outcome = self._converse(process, to_json(order).encode() + b"\n", deadline, on_wait)
        except _Late:
            self.close()
            raise ModelTimedOut(f"the model ran over its time limit of {timeout:g} s during {self._stage}") from None
        except BaseException:  # also KeyboardInterrupt: nothing may be left running
            self.close()
            raise
        if problem := _forged(outcome, order):
            self.close()
            raise ModelCrashed(f"the model's process answered {problem}")
        return outcome

    def close(self) -> None:
        """Ends the child, and whatever it started."""
        process, self._process = self._process, None
        if process is not None:
            _end(process)

    def _empty(self, order: JobOrder | None) -> None:
        """What earlier processes have left is none of the next one's business, and takes its room."""
        output = None if order is None else Path(order.output_dir)
        if output != self._room.writable:  # of a single job the scratch is the place of its results
            clear(self._room.writable, keep=output)

    def _child(self, order: JobOrder) -> subprocess.Popen[bytes]:
        bundle = (order.bundle, _stamp(Path(order.bundle)))
        if self._process is not None and (self._bundle not in (None, bundle) or not _alive(self._process)):
            self.close()
        if self._process is None:
            self._empty(order)
            self._process = _start(self._command, self._room)
        self._bundle = bundle
        self._stage, self._buffer = "start", b""
        return self._process

    def _converse(
        self, process: subprocess.Popen[bytes], order: bytes, deadline: float, on_wait: Callable[[], None]
    ) -> Outcome:
        assert process.stdin and process.stdout  # noqa: S101
        unsent, next_tick = memoryview(order), time.monotonic() + TICK
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            selector.register(process.stdin, selectors.EVENT_WRITE)
            while True:
                wait = min(next_tick, deadline) - time.monotonic()
                for key, _ in selector.select(max(wait, 0)):
                    if key.fileobj is process.stdin:
                        unsent = unsent[_write(process.stdin.fileno(), unsent) :]
                        if not unsent:
                            selector.unregister(process.stdin)
                    elif (outcome := self._receive(process)) is not None:
                        return outcome
                if time.monotonic() >= deadline:
                    raise _Late
                if time.monotonic() >= next_tick:
                    next_tick = time.monotonic() + TICK
                    self._look_after(process)
                    on_wait()
                    # A process that it forked may hold the pipe open after its death.
                    if not _alive(process) and not selector.select(0):
                        raise self._death(process)

    def _look_after(self, process: subprocess.Popen[bytes]) -> None:
        """Raises ModelDenied where the child takes more room or threads than it may have."""
        limit = self._room.scratch_mib * 2**20
        if taken(self._room.writable, limit) + nameless(process.pid, self._room.writable) > limit:
            raise ModelDenied(f"the model filled its scratch of {self._room.scratch_mib} MiB during {self._stage}")
        if threads(process.pid) > _THREADS:
            raise ModelDenied(f"the model started more than {_THREADS} threads during {self._stage}")

    def _receive(self, process: subprocess.Popen[bytes]) -> Outcome | None:
        """Reads what is there; the outcome, when it is complete. Raises the error the child reports, or its death."""
        assert process.stdout  # noqa: S101
        chunk = os.read(process.stdout.fileno(), 65536)
        if not chunk:
            raise self._death(process)
        if len(self._buffer) > LONGEST_ANSWER:
            raise ModelCrashed(f"the model's process said too much during {self._stage}")
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        for line in lines:
            outcome = self._understand(line)
            if outcome is not None:
                return outcome
        return None

    def _understand(self, line: bytes) -> Outcome | None:
        try:
            message: dict[str, Any] = json.loads(line)
            if "stage" in message:
                if not _STAGE.fullmatch(message["stage"]):
                    raise ValueError("no stage")
                self._stage = message["stage"]
                self._on_stage(self._stage)
                return None
            if "outcome" in message:
                return from_json(Outcome, json.dumps(message["outcome"]))
            kind, text = _KINDS[message["kind"]], _sentence(str(message["error"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ModelCrashed(f"the model's process said something unknown during {self._stage}") from None
        raise kind(text)

    def _death(self, process: subprocess.Popen[bytes]) -> ModelError:
        """Why the process is gone, from its exit status."""
        died = _dies_soon(process)
        status = _end(process)
        self._process = None
        during = f"during {self._stage}"
        if not died:
            return ModelCrashed(f"the model's process closed its answers {during}")
        if status == -signal.SIGKILL:
            return ModelOutOfMemory(f"the model's process was killed (SIGKILL) {during}: probably out of memory")
        if status < 0:
            return ModelCrashed(f"the model's process was killed by signal {-status} ({_name(-status)}) {during}")
        return ModelCrashed(f"the model's process ended with exit status {status} {during}")


def _forged(outcome: Outcome, order: JobOrder) -> str:
    """What is wrong with an answer; nothing may be read outside the job's folder because a model said so."""
    if outcome.job_id != order.job_id:
        return "for another job"
    folder = Path(order.output_dir)
    for item in outcome.objects:
        file = folder / item.file
        if Path(item.file).name != item.file or file.is_symlink() or not file.is_file():
            return "with a result object that is no file of its folder"
    return ""


class _Late(Exception):
    """The deadline has passed."""


def _start(command: Sequence[str], room: Room) -> subprocess.Popen[bytes]:
    """The child leads a session and process group of its own, so that all it starts can be ended with it."""
    try:
        process = subprocess.Popen(
            [*command, str(os.getpid()), room.to_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            env=_environment(),
        )
    except OSError as error:
        raise ModelCrashed(f"the model's process cannot be started: {error.strerror}") from error
    assert process.stdin  # noqa: S101
    os.set_blocking(process.stdin.fileno(), False)
    return process


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in ENVIRONMENT or name.startswith(ENVIRONMENT_PREFIXES)
    }
    return kept | {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONHASHSEED": "0"}


def _sentence(text: str) -> str:
    """What a child says goes into logs and messages: printable, and not too long."""
    return "".join(each for each in text[:_SAID] if each.isprintable())


def _stamp(bundle: Path) -> object:
    """Changes when any file of the bundle does; cheap enough for every job."""
    try:
        files = [path for path in sorted(bundle.rglob("*")) if path.suffix != ".pyc" and path.is_file()]
        return [(path, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    except OSError:  # it is being changed right now: like no other
        return object()


def _write(descriptor: int, data: memoryview) -> int:
    try:
        return os.write(descriptor, data)
    except BlockingIOError:
        return 0
    except BrokenPipeError:  # its death shows on the other pipe, with the reason
        return len(data)


def _alive(process: subprocess.Popen[bytes]) -> bool:
    """Without taking the exit status: while the process is not reaped, nobody else can get its number."""
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def _dies_soon(process: subprocess.Popen[bytes]) -> bool:
    """A process that crashes closes its pipes a moment before it has an exit status."""
    patience = time.monotonic() + _MOMENT
    while _alive(process):
        if time.monotonic() > patience:
            return False
        time.sleep(0.005)
    return True


def _end(process: subprocess.Popen[bytes]) -> int:
    """Kills what is left of the process group and returns the exit status, negative for a signal."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    return process.wait()


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
