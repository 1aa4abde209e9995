"""Whose turn it is to write, among processes that all take instances in.

A process that finds SQLite locked sleeps, longer each time, up to 0.1 s: too long for one that is asked to answer in a few
milliseconds. So those that write much line up here first.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

_PAUSE = 0.0002  # seconds between two looks
_PATIENCE = 1.0  # seconds after which it goes on all the same: the database has a lock of its own


class Turn:
    """A context manager for one thread of a process at a time."""

    def __init__(self, file: Path) -> None:
        self._handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not self._taken() and time.monotonic() < deadline:
            time.sleep(_PAUSE)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        fcntl.flock(self._handle, fcntl.LOCK_UN)

    def __del__(self) -> None:
        os.close(self._handle)

    def _taken(self) -> bool:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
