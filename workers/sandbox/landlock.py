"""Which files a process may read and write: Landlock (https://docs.kernel.org/userspace-api/landlock.html).

It binds the calling thread and those it starts later, so it must come before the first thread.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

from workers.sandbox.kernel import call

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
_GET_VERSION = 1
_PATH_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_REFER, _TRUNCATE, _IOCTL_DEVICE = 1 << 13, 1 << 14, 1 << 15

READ = READ_FILE | READ_DIR
RUN = READ | EXECUTE
CHANGE = READ | WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER | _TRUNCATE
USE_DEVICE = READ_FILE | WRITE_FILE | _TRUNCATE | _IOCTL_DEVICE
_OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | _TRUNCATE | _IOCTL_DEVICE

_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # version -> how many rights it knows
_NO_TCP = 0b11  # bind and connect, version 4
_NO_ABSTRACT_SOCKETS_NO_SIGNALS = 0b11  # scopes, version 6


def version() -> int:
    """The kernel's Landlock version; raises OSError where there is none."""
    return call(_CREATE_RULESET, None, 0, _GET_VERSION)


def restrict(rules: Iterable[tuple[Path, int]]) -> None:
    """Takes every right on files away that no rule (path and all beneath it, rights) gives; raises OSError.

    Needs `no_new_privs`. A path that does not exist gives nothing. TCP, abstract sockets and signals to processes
    outside are taken away too, where the kernel can.
    """
    known = version()
    rights = (1 << _FILE_RIGHTS[min(known, 5)]) - 1
    attributes = struct.pack(
        "=QQQ", rights, _NO_TCP if known >= 4 else 0, _NO_ABSTRACT_SOCKETS_NO_SIGNALS if known >= 6 else 0
    )
    size = 8 if known < 4 else 16 if known < 6 else 24
    ruleset = call(_CREATE_RULESET, attributes, size, 0)
    try:
        for path, allowed in rules:
            _allow(ruleset, path, allowed & rights)
        call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, allowed: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            allowed &= _OF_A_FILE
        call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", allowed, place), 0)
    finally:
        os.close(place)
