"""The model's process: reads orders on standard input, one JSON line each, and answers on standard output.

    {"stage": "load"}                                  as each stage begins
    {"outcome": {...}}                                 one for each order that came to an end, refusals too
    {"error": "one sentence", "kind": "BundleInvalid"} for each that did not

A model may do what it likes in here: print, leak, crash. Whoever started the process (`workers.supervisor`) limits its
time and turns its death into a reason; the process limits its own memory, dies with its parent, and locks itself up
(`workers.sandbox`) before it reads anything of a bundle.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import json
import os
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from gateway.bundle.files import read_manifest
from gateway.domain.errors import HilumError
from gateway.domain.messages import JobOrder, from_json, to_json
from gateway.observe.logs import log
from workers.libraries import set_up_libraries
from workers.memory import LIBRARIES_MIB
from workers.sandbox.confine import confine
from workers.sandbox.kernel import PR_SET_PDEATHSIG, prctl
from workers.sandbox.room import Room

if TYPE_CHECKING:
    from workers.fuse.model import FusionModel
    from workers.infer.model import Model

_M_MMAP_MAX, _M_TRIM_THRESHOLD = -4, -1  # malloc.h

_DENIED = {errno.EPERM, errno.EACCES, errno.EROFS, errno.EFBIG, errno.ENOSYS}
"""What the sandbox answers."""

_MAPPED = 8  # GiB of address space beside private memory: libraries, weights read from files, arenas of threads
_NO_MEMORY = ("can't allocate memory", "out of memory", "bad_alloc", "Cannot allocate memory")


class Child:
    """Runs orders one after another and keeps the last model open."""

    def __init__(self, wire: TextIO) -> None:
        self._wire = wire
        self._bundle = ""
        self._model: Model | FusionModel | None = None
        self._stage = "start"

    def answer(self, line: str) -> None:
        """Runs one order and writes what came of it; a HilumError or whatever a model raises becomes an error line."""
        try:
            outcome = self._run(from_json(JobOrder, line))
        except HilumError as error:
            self._fail(type(error).__name__, error.message)
        except MemoryError:
            self._fail("ModelOutOfMemory", f"the model's process ran out of memory during {self._stage}")
        except Exception as error:  # noqa: BLE001 - the edge of the process: anything a model, a script or a parser raises
            self._fail_unexpected(error)
        else:
            self._tell({"outcome": json.loads(outcome)})

    def _run(self, order: JobOrder) -> str:
        self._progress("open")
        if self._model is None or order.bundle != self._bundle:
            self._open(order.bundle)
        from workers.tasks import run

        assert self._model is not None  # noqa: S101
        return to_json(run(order, self._model, self._progress))

    def _open(self, bundle: str) -> None:
        self._model = None
        gc.collect()
        manifest = read_manifest(Path(bundle))
        limit_memory(manifest.resources.memory_mib)
        from workers.fuse.model import open_fusion
        from workers.infer.model import open_model

        self._model = open_model(Path(bundle)) if manifest.fusion is None else open_fusion(Path(bundle))
        self._bundle = bundle

    def _progress(self, stage: str) -> None:
        self._stage = stage
        self._tell({"stage": stage})

    def _fail_unexpected(self, error: Exception) -> None:
        if isinstance(error, OSError) and error.errno in _DENIED and self._stage == "infer":
            self._fail("ModelDenied", f"the model's sandbox stopped it during infer: {error.strerror}")
            return
        if isinstance(error, RuntimeError | OSError) and any(sign in str(error) for sign in _NO_MEMORY):
            self._fail("ModelOutOfMemory", f"the model's process ran out of memory during {self._stage}")
            return
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        # The network sees voxels only. Elsewhere an exception's text may hold a value out of the images' headers.
        text = f" ({(str(error).splitlines() or [''])[0][:200]})" if self._stage == "infer" else ""
        self._fail("ModelCrashed", f"{type(error).__name__} at {place} during {self._stage}{text}")

    def _fail(self, kind: str, error: str) -> None:
        self._tell({"error": error, "kind": kind})

    def _tell(self, message: dict[str, Any]) -> None:
        self._wire.write(json.dumps(message, separators=(",", ":")) + "\n")
        self._wire.flush()


def limit_memory(mebibytes: int) -> None:
    """Lets the process have so much private memory beside its libraries; what asks for more fails with MemoryError.

    RLIMIT_DATA counts what is really private and writable. RLIMIT_AS, which counts every mapped library and shared
    memory too, is a wide fence behind it, where no CUDA driver reserves address space. Neither can be raised again.
    """
    limit = (mebibytes + LIBRARIES_MIB) * 2**20
    _lower(resource.RLIMIT_DATA, limit)
    if not Path("/dev/nvidiactl").exists():
        _lower(resource.RLIMIT_AS, 2 * limit + _MAPPED * 2**30)


def _lower(kind: int, limit: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(kind, (limit, limit))


def take_wire() -> tuple[TextIO, TextIO]:
    """Keeps the real standard input and output for orders and answers: a model that prints, prints to standard error."""
    orders = os.fdopen(os.dup(0), "r", encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return orders, answers


def die_with(parent: int) -> None:
    """Has the kernel kill this process when its parent dies, even by SIGKILL."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)


def keep_memory() -> None:
    """Has glibc take large blocks from one heap, and keep what is freed: mallopt(3), M_MMAP_MAX and M_TRIM_THRESHOLD.

    By default each tensor of some megabytes is mapped anew, and every page of it is faulted in and zeroed again: a million
    faults in four runs of `brain_mask`, and 40 % more processor time (docs/benchmarks.md). Elsewhere than in glibc, nothing.
    """
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def load_libraries() -> None:
    """Seconds of importing, best spent before there is an order.

    What is imported stays, a million objects: looking through them for garbage again and again is a tenth of the time of
    importing, and more of a job's.
    """
    gc.disable()
    set_up_libraries()
    import workers.infer.model
    import workers.tasks  # noqa: F401
    from workers.encode.warm import warm_up

    warm_up()
    gc.freeze()
    gc.enable()


def main() -> None:
    """Serves orders until standard input ends."""
    parent, room = sys.argv[1:3]
    die_with(int(parent))
    orders, answers = take_wire()
    if missing := confine(Room.from_json(room)):
        log(stage="worker").warning("this machine cannot close the model's sandbox", missing=missing)
    child = Child(answers)
    keep_memory()
    load_libraries()
    for line in orders:
        child.answer(line)


if __name__ == "__main__":
    main()
