"""Receiving: Hilum beside DCMTK's storescp and Orthanc, the same files from the same senders in one run.

`make bench-receive`, or `python -m tests.benchmarks.receive [--quick] [--only PART ...]`. Prints the tables of
docs/benchmarks.md on stdout, and how far it is on stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.benchmarks import first_job, lost, stow
from tests.benchmarks.receivers import FAST, RECEIVERS, Receiver, progress
from tests.benchmarks.sender import Item, Sending, read_item
from tests.benchmarks.watch import Watch
from tests.support.series import axial, write_series

CALLED = "HILUM"
_CONNECTED = 50  # associations at the same time


@dataclass(frozen=True)
class Work:
    """What is sent."""

    name: str
    instances: int
    rows: int  # and as many columns, 16 bit

    @property
    def megabytes(self) -> float:
        """Of all pixels."""
        return self.instances * self.rows**2 * 2 / 1e6


@dataclass(frozen=True)
class Figures:
    """What came of it."""

    seconds: float
    p95: float  # seconds from the first byte of an instance to its answer; 0 where the sender does not say
    cpu: float  # seconds
    memory: int  # bytes at most


def main() -> None:
    """Runs what was asked for and prints the tables."""
    parts: dict[str, Callable[[Path, bool], None]] = {
        "ct": lambda folder, quick: _speed(folder, Work("CT, 512 KB", 60 if quick else 300, 512), quick),
        "mg": lambda folder, quick: _speed(folder, Work("MG, 2 MB", 12 if quick else 60, 1024), quick),
        "dcmsend": lambda folder, quick: _dcmsend_table(folder, Work("CT, 512 KB", 60 if quick else 300, 512)),
        "large": lambda folder, quick: _large(folder, 256 if quick else 2048),
        "associations": lambda folder, _quick: _associations(folder),
        "stow": lambda folder, quick: _stow(folder, Work("CT, 512 KB", 60 if quick else 300, 512), quick),
        "stow-large": lambda folder, quick: stow.large(folder, 256 if quick else 2048),
        "start": lambda folder, quick: first_job.table(folder, rounds=3 if quick else 10),
        "lost": lambda folder, quick: lost.tables(folder, rounds=1 if quick else 3),
    }
    parser = argparse.ArgumentParser(description="Receiving beside DCMTK and Orthanc.")
    parser.add_argument("--quick", action="store_true", help="a fifth of the images, one round: to see that it works")
    parser.add_argument("--only", nargs="+", choices=list(parts), metavar="PART", help=f"of {', '.join(parts)}")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that receivers, and mounts, are cleared away
    os.environ.update(FAST)
    with tempfile.TemporaryDirectory(prefix="hilum-bench-") as name:
        for part in asked.only or parts:
            parts[part](Path(name), asked.quick)


def _speed(folder: Path, work: Work, quick: bool) -> None:
    for senders in (1, 4) if quick else (1, 4, 16):
        _table(folder, work, senders, "own sender", rounds=1 if quick else 3)


def _dcmsend_table(folder: Path, work: Work) -> None:
    _table(folder, work, 1, "dcmsend", rounds=2)


def _stow(folder: Path, work: Work, quick: bool) -> None:
    stow.speed(folder, _files(folder / f"{work.rows}-{work.instances}", work), work.megabytes, rounds=1 if quick else 3)


def _table(folder: Path, work: Work, senders: int, program: str, rounds: int) -> None:
    print(f"\n**{work.instances} x {work.name}, {senders} x {program}**, best of {rounds}\n")
    print("| receiver | MB/s | instances/s | p95 of the answer, ms | CPU, s | memory, MB | Hilum is |")
    print("|---|---|---|---|---|---|---|")
    found: dict[str, Figures] = {}
    source = folder / f"{work.rows}-{work.instances}"
    files = _files(source, work)
    for kind in RECEIVERS * rounds:  # in turns, so that a busy machine is unjust to nobody
        progress(f"{work.instances} x {work.name}, {senders} x {program}, to {kind.name}")
        figures = _measure(folder, kind, files, senders, program)
        known = found.get(kind.name)
        found[kind.name] = figures if known is None or figures.seconds < known.seconds else known
    ours = found[RECEIVERS[0].name].seconds
    for name, f in found.items():
        speed = f"{work.megabytes / f.seconds:.0f} | {work.instances / f.seconds:.0f}"
        p95 = f"{f.p95 * 1e3:.1f}" if f.p95 else "-"
        print(
            f"| {name} | {speed} | {p95} | {f.cpu:.2f} | {f.memory / 1e6:.0f} | {f.seconds / ours:.2f} x |", flush=True
        )


def _files(source: Path, work: Work) -> list[Path]:
    if not source.exists():
        voxels = np.random.default_rng().integers(0, 4000, (work.instances, work.rows, work.rows), dtype=np.uint16)
        write_series(source, voxels, axial(voxels.shape), modality="CT", seed=work.name)
    return sorted(source.iterdir())


def _measure(folder: Path, kind: type[Receiver], files: list[Path], senders: int, program: str) -> Figures:
    # Nothing is removed before the end: ext4 passes over inodes that were freed within the last minutes, one by one,
    # whenever a file is made near them, and whoever is measured next would wait for that.
    receiver = kind(Path(tempfile.mkdtemp(dir=folder)) / "receiver")
    receiver.start()
    try:
        os.sync()  # what earlier work has left to the disk is nobody's to wait for
        with Watch(receiver) as watch:
            if program == "dcmsend":
                seconds, answers = _dcmsend(receiver.port, files[0].parent), [0.0]
            else:
                seconds, answers = _send(receiver.port, files, senders)
    finally:
        receiver.stop()
    return Figures(seconds, sorted(answers)[int(0.95 * len(answers))], watch.cpu, watch.memory)


def _send(port: int, files: list[Path], senders: int) -> tuple[float, list[float]]:
    processes = [start_sender(port, files[number::senders]) for number in range(senders)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    started = time.perf_counter()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate()[0] for process in processes]
    seconds = time.perf_counter() - started
    lines = [json.loads(line) for text in said for line in text.splitlines()]
    assert len(lines) == len(files), "not every instance was answered"
    assert {line[1] for line in lines} == {0}
    return seconds, [line[2] for line in lines]


def start_sender(port: int, files: list[Path]) -> subprocess.Popen[str]:
    """One process with one association; it says `ready` and waits for a line."""
    command = [sys.executable, "-m", "tests.benchmarks.sender", str(port), CALLED, *map(str, files)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _dcmsend(port: int, source: Path) -> float:
    started = time.perf_counter()
    command = ["dcmsend", "-aec", CALLED, "+sd", "127.0.0.1", str(port), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def _large(folder: Path, megabytes: int) -> None:
    print(f"\n**One multi-frame of {megabytes} MB, 1 x own sender**\n")
    print("| receiver | MB/s | CPU, s | memory above idle, MB |")
    print("|---|---|---|---|")
    for kind in RECEIVERS:
        progress(f"a multi-frame of {megabytes} MB to {kind.name}")
        with tempfile.TemporaryDirectory(dir=folder) as name:
            receiver = kind(Path(name))
            receiver.start()
            try:
                with Watch(receiver) as watch:
                    started = time.perf_counter()
                    _send_large(receiver.port, megabytes)
                    seconds = time.perf_counter() - started
            finally:
                receiver.stop()
        above = (watch.memory - watch.idle) / 1e6
        print(f"| {kind.name} | {megabytes * 1.048576 / seconds:.0f} | {watch.cpu:.1f} | {above:.0f} |", flush=True)


def _send_large(port: int, megabytes: int) -> None:
    # An X-Ray Angiographic multi-frame in explicit VR little endian, made while it is sent.
    from pydicom.uid import ExplicitVRLittleEndian, XRayAngiographicImageStorage

    from tests.support.received import dataset, encode

    made = dataset(1, SOPClassUID=XRayAngiographicImageStorage, Rows=1024, Columns=512, NumberOfFrames=megabytes)
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 0
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    frame = np.random.default_rng(0).bytes(1 << 20)

    def pieces() -> Iterator[bytes]:
        yield encode(made) + b"\xe0\x7f\x10\x00OW\0\0" + (megabytes << 20).to_bytes(4, "little")
        for _ in range(megabytes):
            yield frame

    item = Item(str(XRayAngiographicImageStorage), made.SOPInstanceUID, str(ExplicitVRLittleEndian), pieces())
    sending = Sending(port, CALLED, item.sop_class_uid, item.transfer_syntax_uid)
    assert sending.store(item) == 0
    sending.release()


def _associations(folder: Path) -> None:
    each = 4
    print(f"\n**{_CONNECTED} associations at the same time, {each} x CT, 512 KB, each**\n")
    print("| receiver | MB/s | memory, MB | memory with all its processes, MB |")
    print("|---|---|---|---|")
    work = Work("CT, 512 KB", _CONNECTED * each, 512)
    items = [read_item(path) for path in _files(folder / "associations", work)]
    for kind in RECEIVERS:
        progress(f"{_CONNECTED} associations with {kind.name}")
        with tempfile.TemporaryDirectory(dir=folder) as name:
            receiver = kind(Path(name))
            receiver.start()
            try:
                with Watch(receiver) as watch:
                    seconds, everything = _send_together(receiver, items)
            finally:
                receiver.stop()
        print(f"| {kind.name} | {work.megabytes / seconds:.0f} | {watch.memory / 1e6:.0f} | {everything / 1e6:.0f} |")


def _send_together(receiver: Receiver, items: list[Item]) -> tuple[float, int]:
    """Seconds, and bytes of all processes while all associations are there; no one ends before all have sent."""
    all_sent = threading.Barrier(_CONNECTED + 1, timeout=300)
    statuses: list[int] = []

    def send(mine: list[Item]) -> None:
        sending = Sending(receiver.port, CALLED, mine[0].sop_class_uid, mine[0].transfer_syntax_uid)
        statuses.extend(sending.store(item) for item in mine)
        all_sent.wait()
        all_sent.wait()  # until the memory has been looked at
        sending.release()

    threads = [threading.Thread(target=send, args=(items[n::_CONNECTED],), daemon=True) for n in range(_CONNECTED)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    all_sent.wait()
    seconds, memory = time.perf_counter() - started, receiver.memory_of_all()
    all_sent.wait()
    for thread in threads:
        thread.join()
    assert statuses == [0] * len(items), "not every instance was taken"
    return seconds, memory


if __name__ == "__main__":
    main()
