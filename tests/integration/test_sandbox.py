"""The sandbox where a machine gives all of it, and where it gives no namespaces, as most containers do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import json, sys
from pathlib import Path
from workers.sandbox.confine import confine
from workers.sandbox.room import Room

def refused(act):
    try:
        act()
    except OSError as error:
        return type(error).__name__
    return ""

import os, socket
scratch = Path(sys.argv[1])
room = Room(readable=(), writable=scratch)
first, second = confine(room), confine(room)  # the second time nothing new may be unshared
(scratch / "kept").write_text("x")
print(json.dumps([first, second, refused(socket.socket), refused(os.fork), refused(lambda: open("/etc/passwd"))]))
"""


def test_what_a_machine_does_not_give_is_named_and_the_rest_holds(tmp_path: Path) -> None:
    """Namespaces are missing the second time; sockets, processes and files are closed all the same."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    first, second, *refusals = json.loads(ran.stdout)
    assert all("namespaces" in item for item in first)
    assert [item.split(":")[0] for item in second] == ["a network of its own (namespaces)"]
    assert refusals == ["PermissionError"] * 3
    assert (tmp_path / "kept").exists()


def test_this_machine_is_asked_from_the_command_line() -> None:
    """What `hilum check` shows: here everything that matters is there."""
    ran = subprocess.run(
        [sys.executable, "-m", "workers.sandbox"], capture_output=True, text=True, timeout=60, check=True
    )
    assert not [item for item in json.loads(ran.stdout) if "Landlock" in item or "seccomp" in item]
