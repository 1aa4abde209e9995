"""How much memory there is, and how much of it a process holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

MIB = 2**20

LIBRARIES_MIB = 1024
"""What Python, torch and MONAI take before any model: 400 MiB measured, more with more threads."""

SPARE_MIB = 512
"""What is left to others of a machine's or container's free memory."""


def held_mib(pid: int) -> int:
    """What a process holds now: pages it shares count in part (PSS), or in full where that cannot be seen; 0 for none."""
    try:
        process = psutil.Process(pid)
        try:
            taken = process.memory_full_info().pss
        except (psutil.AccessDenied, AttributeError):
            taken = process.memory_info().rss
    except psutil.Error:
        return 0
    return int(taken) // MIB


def peak_mib(pid: int) -> int:
    """The most that a process has ever held (VmHWM, proc_pid_status(5)); 0 where that cannot be seen."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM:")), 0)


def free_and_total_mib(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> tuple[int, int]:
    """What this machine, or the container in it, still has for new work, and would have were nothing else there, in MiB.

    ``groups`` is where cgroups (version 2) are mounted, ``own`` names that of this process (cgroups(7)).
    """
    machine = psutil.virtual_memory()
    rooms = [(int(machine.available), int(machine.total)), *_group_rooms(groups, own)]
    free, total = (max(min(column) // MIB - SPARE_MIB, 0) for column in zip(*rooms, strict=True))
    return free, total


def free_mib() -> int:
    """What this machine, or the container in it, still has for new work, in MiB."""
    return free_and_total_mib()[0]


def _group_rooms(groups: Path, own: Path) -> Iterator[tuple[int, int]]:
    """Bytes that each group around this process leaves, and its limit; pages of files that it may drop count as free."""
    for group in _groups(groups, own):
        try:
            limit = (group / "memory.max").read_text(encoding="utf-8").strip()
            if limit != "max":
                used = int((group / "memory.current").read_text(encoding="utf-8"))
                yield int(limit) - used + _droppable(group), int(limit)
        except (OSError, ValueError):  # no limit of memory there
            continue


def _groups(groups: Path, own: Path) -> Iterator[Path]:
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    place = next((line[3:] for line in lines if line.startswith("0::")), "/")
    group = groups / place.lstrip("/")
    yield group
    yield from (above for above in group.parents if above.is_relative_to(groups))


def _droppable(group: Path) -> int:
    lines = (group / "memory.stat").read_text(encoding="utf-8").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
