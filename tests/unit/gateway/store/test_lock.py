"""One gateway for one data directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.domain.errors import ServiceUnavailable
from gateway.store.lock import exclusive

HOLD = """
import pathlib, sys, time
from gateway.store.lock import exclusive
with exclusive(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    """While another process holds the directory it is refused with a fix; a killed process holds nothing."""
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    with pytest.raises(ServiceUnavailable, match=r"another gateway is using .*; stop it"), exclusive(tmp_path):
        pass
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    first.stdout.close()
    with exclusive(tmp_path), pytest.raises(ServiceUnavailable), exclusive(tmp_path):
        pass
    with exclusive(tmp_path):
        pass


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    """A file in its place is one sentence."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceUnavailable, match="cannot be used"), exclusive(tmp_path / "file"):
        pass
