"""What is missing of what was acknowledged: after SIGKILL in the middle, and after the power goes.

The power goes by shutting down an ext4 file system on a loop device without flushing its log: whatever has not reached the
block device is gone, as with a machine that is switched off. Answers count that were read before. Needs root.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import random
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from tests.benchmarks.receivers import RECEIVERS, Receiver, Stored, progress
from tests.support.series import axial, dataset_sha256, write_series

_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, struct.pack("I", 2)  # EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH
_CLONE_NEWNS = 0x00020000
_SENDERS, _INSTANCES, _SIZE = 4, 1200, 128  # slices of 32 KB


def tables(folder: Path, rounds: int) -> None:
    """Prints how many are lost."""
    _see_mounts_alone()
    print(f"\n**Acknowledged instances that are missing or damaged**, {rounds} times each, {_SENDERS} senders\n")
    print("| receiver | SIGKILL | power cut |")
    print("|---|---|---|")
    for kind in RECEIVERS:
        progress(f"kills and power cuts of {kind.name}")
        killed = [_killed(folder, kind) for _ in range(rounds)]
        cut = [_cut(folder, kind) for _ in range(rounds)] if os.getuid() == 0 else []
        print(f"| {kind.name} | {_sum(killed)} | {_sum(cut) if cut else 'needs root'} |", flush=True)


def _see_mounts_alone() -> None:
    """Nobody's namespace gets a copy of our mounts, which would keep them; and they go with this process, however it ends."""
    if os.getuid() == 0:
        assert ctypes.CDLL(None).unshare(_CLONE_NEWNS) == 0
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def _sum(results: list[tuple[int, int]]) -> str:
    lost, acknowledged = (sum(column) for column in zip(*results, strict=True))
    return f"{lost} of {acknowledged}"


def _killed(folder: Path, kind: type[Receiver]) -> tuple[int, int]:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        receiver, sent = kind(Path(name) / "receiver"), _series(Path(name) / "source")
        try:
            acknowledged = _interrupted(receiver, Path(name) / "source", receiver.kill)
        finally:
            receiver.kill()
        return _missing(acknowledged, sent, receiver.stored()), len(acknowledged)


def _cut(folder: Path, kind: type[Receiver]) -> tuple[int, int]:
    with tempfile.TemporaryDirectory(dir=folder) as name, _disk(Path(name)) as disk:
        receiver, sent = kind(disk.mount / "receiver"), _series(Path(name) / "source")
        try:
            acknowledged = _interrupted(receiver, Path(name) / "source", disk.cut)
        finally:
            receiver.kill()
        disk.again()
        return _missing(acknowledged, sent, receiver.stored()), len(acknowledged)


def _missing(acknowledged: list[str], sent: Stored, kept: Stored) -> int:
    return sum(kept.get(uid) != sent[uid] for uid in acknowledged)


def _series(folder: Path) -> Stored:
    from pydicom.filereader import read_file_meta_info

    voxels = np.random.default_rng().integers(0, 4000, (_INSTANCES, _SIZE, _SIZE), dtype=np.uint16)
    files = write_series(folder, voxels, axial(voxels.shape), modality="CT", seed=str(folder))
    return {str(read_file_meta_info(path).MediaStorageSOPInstanceUID): dataset_sha256(path) for path in files}


def _interrupted(receiver: Receiver, source: Path, end: Callable[[], None]) -> list[str]:
    """Sends until it is ended at a random moment; what was acknowledged until just before."""
    from tests.benchmarks.receive import start_sender

    receiver.start()
    os.sync()  # its configuration is not what is tried
    files, acknowledged = sorted(source.iterdir()), list[str]()
    processes = [start_sender(receiver.port, files[number::_SENDERS]) for number in range(_SENDERS)]
    readers = [threading.Thread(target=_listen, args=(process.stdout, acknowledged)) for process in processes]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for reader, process in zip(readers, processes, strict=True):
        reader.start()
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    wanted, patience = random.randrange(100, _INSTANCES // 2), time.monotonic() + 60
    try:
        while len(acknowledged) < wanted and time.monotonic() < patience:
            time.sleep(0.002)  # between two looks; the count ends the wait
        before = list(acknowledged)
        end()
    finally:
        for reader, process in zip(readers, processes, strict=True):
            process.kill()
            process.wait()
            reader.join()
    return before


def _listen(lines: Iterator[str], acknowledged: list[str]) -> None:
    for line in lines:
        with suppress(ValueError):  # the last line of a sender that was killed
            uid, status, _ = json.loads(line)
            if status == 0:
                acknowledged.append(uid)


class _Disk:
    """A file system of its own, that can lose its power."""

    def __init__(self, folder: Path) -> None:
        self._image, self.mount = folder / "image", folder / "mount"
        self.mount.mkdir()
        with self._image.open("wb") as image:
            image.truncate(1 << 30)
        subprocess.run(["mkfs.ext4", "-q", "-F", self._image], check=True)
        self.again(first=True)

    def cut(self) -> None:
        """Nothing that is not on the block device stays."""
        handle = os.open(self.mount, os.O_RDONLY)
        fcntl.ioctl(handle, _SHUTDOWN, _NO_LOG_FLUSH)
        os.close(handle)

    def again(self, *, first: bool = False) -> None:
        """The power comes back: the journal is replayed."""
        if not first:
            self.unmount()
        subprocess.run(["mount", "-o", "loop", self._image, self.mount], check=True)

    def unmount(self) -> None:
        """Waits until nobody uses it."""
        end = time.monotonic() + 20
        while subprocess.run(["umount", self.mount], capture_output=True).returncode:
            if time.monotonic() > end:
                self.detach()
                raise AssertionError("the file system stays in use")
            time.sleep(0.1)  # between two tries

    def detach(self) -> None:
        """Whatever happened, no mount is left; its device goes with its last user."""
        while os.path.ismount(self.mount) and not subprocess.run(["umount", "-l", self.mount]).returncode:
            pass


@contextmanager
def _disk(folder: Path) -> Iterator[_Disk]:
    disk = _Disk(folder)
    try:
        yield disk
        disk.unmount()
    finally:
        disk.detach()
