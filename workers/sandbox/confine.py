"""Closes the room: everything that is not needed is taken away, and what this kernel cannot take away is named."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import gateway
import workers
from workers.sandbox import landlock, namespaces, seccomp
from workers.sandbox.kernel import CAP_DAC_READ_SEARCH, PR_SET_NO_NEW_PRIVS, drop_capabilities, prctl
from workers.sandbox.room import Room

_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/opt/nvidia", "/opt/rocm")
_OF_PYTHON = ("lib", "lib64", "bin", "share", "include", "pyvenv.cfg")
"""What is read beneath the prefix of an installation; a site may keep its data beside it."""
_READ_ONLY = (
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/OpenCL",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/version",
    "/proc/filesystems",
    "/proc/driver/nvidia",
    "/proc/sys/vm",
    "/proc/sys/kernel",
    "/dev/urandom",
    "/dev/random",
    "/dev/zero",
    "/sys",
)
_OPEN_FILES = 4096


def confine(room: Room) -> tuple[str, ...]:
    """Confines this process, which must have one thread only, for good; returns what could not be taken away.

    It keeps: reading the libraries, its room and facts about the machine; its scratch; graphics devices. It loses:
    other files, the network, new processes, signals to others, privileges.
    """
    limit_files(room)
    # The list of users will be out of reach, where libraries would look for these.
    os.environ.update(HOME=str(room.writable), TMPDIR=str(room.writable), USER="model")
    missing = []
    rules = _rules(room)  # before anything is taken away that finding them needs
    steps: tuple[tuple[str, Callable[[], None]], ...] = (
        ("a network of its own (namespaces)", namespaces.leave_the_network),
        ("no way to more privileges (no_new_privs)", lambda: prctl(PR_SET_NO_NEW_PRIVS, 1)),
        ("closed files (Landlock)", lambda: landlock.restrict(rules)),
        ("dropped privileges (capabilities)", lambda: drop_capabilities(_kept())),
        ("no sockets, no new processes (seccomp)", seccomp.restrict),
    )
    for name, step in steps:
        try:
            step()
        except OSError as error:
            missing.append(f"{name}: {error.strerror or error}")
    return tuple(missing)


def limit_files(room: Room) -> None:
    """Limits how large one file may grow and how many may be open, so that it cannot be raised again."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    size = room.scratch_mib * 2**20
    for kind, limit in ((resource.RLIMIT_NOFILE, count), (resource.RLIMIT_FSIZE, size), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError):  # the administrator's own limit is lower
            resource.setrlimit(kind, (limit, limit))


def _kept() -> int:
    """The superuser of a container may read what others own, as he could before; nothing else."""
    return 1 << CAP_DAC_READ_SEARCH if os.geteuid() == 0 else 0


def _rules(room: Room) -> list[tuple[Path, int]]:
    return [
        *((Path(path), landlock.RUN) for path in (*_SYSTEM, *_libraries())),
        *((Path(path), landlock.READ) for path in _READ_ONLY),
        (Path("/proc/self"), landlock.READ),
        (Path("/dev/null"), landlock.USE_DEVICE),
        *((path, landlock.USE_DEVICE | landlock.READ) for path in _graphics()),
        *((path, landlock.RUN) for path in room.readable),
        (room.writable, landlock.CHANGE),
    ]


def _libraries() -> set[str]:
    """Python, what is installed, and our own packages; not the directory they happen to lie in."""
    ours = {str(Path(package.__path__[0])) for package in (gateway, workers)}
    around = {str(Path(path).parent) for path in ours}
    linked = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    prefixes = (sys.prefix, sys.base_prefix, sys.exec_prefix)
    installed = {str(Path(prefix) / part) for prefix in prefixes for part in _OF_PYTHON}
    return ours | installed | ({*sys.path, *linked} - {"", ".", "/"} - around - {*prefixes})


def _graphics() -> list[Path]:
    devices = Path("/dev")
    return [*devices.glob("nvidia*"), *devices.glob("dri"), *devices.glob("kfd")]
