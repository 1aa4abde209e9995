"""The few system calls the sandbox needs that Python does not offer. All of them raise OSError."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38  # prctl(2)
CAP_DAC_READ_SEARCH = 2  # capabilities(7)
_CAPABILITIES = 64
_CAPABILITY_VERSION_3 = 0x20080522
_CAPGET_CAPSET = {"x86_64": (125, 126), "aarch64": (90, 91)}

MACHINE = platform.machine()
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def call(number: int, *arguments: object) -> int:
    """syscall(2)."""
    if _libc is None:
        raise OSError("this is not Linux")
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def prctl(option: int, value: int) -> None:
    """prctl(2) with one argument."""
    if _libc is None:
        raise OSError("this is not Linux")
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def drop_capabilities(keep: int = 0) -> None:
    """Leaves the process only those of the capabilities in the bit mask ``keep`` that it has, for good (capset(2))."""
    if MACHINE not in _CAPGET_CAPSET:
        raise OSError(f"unknown machine {MACHINE}")
    read, write = _CAPGET_CAPSET[MACHINE]
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    has = ctypes.create_string_buffer(24)
    call(read, header, has)
    keep &= struct.unpack("=6I", has.raw)[1]  # permitted; a container may lack what we would keep
    for capability in range(_CAPABILITIES):
        if not keep >> capability & 1:
            try:
                prctl(PR_CAPBSET_DROP, capability)
            except OSError:  # the kernel knows fewer, or the process may not, having none anyway
                break
    call(write, header, struct.pack("=6I", keep, keep, 0, 0, 0, 0))
