"""One gateway for one data directory: two would both believe that the other's open associations are lost."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.domain.errors import ServiceUnavailable

_LOCK = "gateway.lock"


@contextmanager
def exclusive(data_dir: Path) -> Iterator[None]:
    """Holds the data directory; raises ServiceUnavailable where another process holds it. Ends with the process."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        handle = os.open(data_dir / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ServiceUnavailable(f"data_dir {data_dir} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ServiceUnavailable(
            f"another gateway is using data_dir {data_dir}; stop it, or set another data_dir"
        ) from None
    else:
        yield
    finally:
        os.close(handle)


def is_held(data_dir: Path) -> bool:
    """Whether a gateway is using the data directory now."""
    if not (data_dir / _LOCK).exists():
        return False
    try:
        with exclusive(data_dir):
            return False
    except ServiceUnavailable:
        return True


def beat(data_dir: Path) -> None:
    """The gateway that holds the data directory is well; raises OSError."""
    os.utime(data_dir / _LOCK)


def silent_for(data_dir: Path) -> float | None:
    """Seconds since the gateway was well; None where there has been none."""
    try:
        return time.time() - (data_dir / _LOCK).stat().st_mtime
    except OSError:
        return None
