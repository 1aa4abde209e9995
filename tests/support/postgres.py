"""A real PostgreSQL for the time of a test: on a unix socket of its own, under a user that is not root."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_USER = "postgres"  # Debian's package makes it; the server refuses to run as root
_START_SECONDS = 60.0


@contextmanager
def running_postgres() -> Iterator[str]:
    """Starts a server and gives its address, `postgresql+psycopg://postgres@/postgres?host=…`; stops it by its id.

    Where PostgreSQL is missing or does not start, that is a failure that shows its log.
    """
    programs = _programs()
    # A short path: the name of a unix socket has at most 107 bytes.
    root = Path(tempfile.mkdtemp(prefix="pg"))
    user = _USER if os.getuid() == 0 else None
    if user:
        shutil.chown(root, user)
    data = root / "data"
    _run([programs / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8"], user)
    settings = ("listen_addresses=", f"unix_socket_directories={root}", "fsync=off", "max_connections=200")
    command = [str(programs / "postgres"), "-D", str(data), *(part for one in settings for part in ("-c", one))]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, user=user, cwd=root)
        try:
            _wait_until_ready(programs, root, process, output)
            yield f"postgresql+psycopg://postgres@/postgres?host={root}"
        finally:
            process.send_signal(signal.SIGINT)  # fast shutdown: open sessions are ended
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            shutil.rmtree(root, ignore_errors=True)


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    assert found, "PostgreSQL is not installed: apt-get install postgresql"
    return found[-1].parent


def _run(command: list[object], user: str | None) -> None:
    done = subprocess.run(
        [str(part) for part in command], user=user, capture_output=True, text=True, cwd="/", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _wait_until_ready(programs: Path, root: Path, process: subprocess.Popen[bytes], output: object) -> None:
    end = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        asked = [str(programs / "pg_isready"), "-q", "-h", str(root)]
        if subprocess.run(asked, check=False).returncode == 0:
            return
        time.sleep(0.05)  # between two questions; the answer ends the wait
    output.seek(0)  # type: ignore[attr-defined]
    raise AssertionError(f"PostgreSQL did not start:\n{output.read().decode(errors='replace')}")  # type: ignore[attr-defined]
