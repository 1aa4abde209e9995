"""Receiving by C-STORE: Hilum beside DCMTK's storescp and Orthanc, the same files from the same senders in one run.

`make bench-receive`, or `python -m tests.benchmarks.receive [--quick]`. Prints the tables of docs/benchmarks.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.benchmarks import lost
from tests.benchmarks.receivers import FAST, RECEIVERS, Receiver
from tests.benchmarks.sender import Item, Sending
from tests.support.series import axial, write_series

CALLED = "HILUM"


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
    """Runs everything and prints the tables."""
    quick = "--quick" in sys.argv
    os.environ.update(FAST)
    works = [Work("CT, 512 KB", 60 if quick else 300, 512), Work("MG, 2 MB", 12 if quick else 60, 1024)]
    with tempfile.TemporaryDirectory(prefix="hilum-bench-") as name:
        folder = Path(name)
        for work in works:
            for senders in (1, 4, 16):
                _table(folder, work, senders, "own sender")
        _table(folder, works[0], 1, "dcmsend")
        _large(folder, 256 if quick else 2048)
        lost.tables(folder, rounds=1 if quick else 3)


def _table(folder: Path, work: Work, senders: int, program: str) -> None:
    print(f"\n**{work.instances} x {work.name}, {senders} x {program}**, best of 2\n")
    print("| receiver | MB/s | instances/s | p95 of the answer, ms | CPU, s | memory, MB | Hilum is |")
    print("|---|---|---|---|---|---|---|")
    found: dict[str, Figures] = {}
    for kind in RECEIVERS * 2:  # in turns, so that a busy machine is unjust to nobody
        figures = _measure(folder / "run", kind, work, senders, program)
        known = found.get(kind.name)
        found[kind.name] = figures if known is None or figures.seconds < known.seconds else known
    ours = found[RECEIVERS[0].name].seconds
    for name, f in found.items():
        speed = f"{work.megabytes / f.seconds:.0f} | {work.instances / f.seconds:.0f}"
        p95 = f"{f.p95 * 1e3:.1f}" if f.p95 else "-"
        print(
            f"| {name} | {speed} | {p95} | {f.cpu:.2f} | {f.memory / 1e6:.0f} | {f.seconds / ours:.2f} x |", flush=True
        )


def _measure(folder: Path, kind: type[Receiver], work: Work, senders: int, program: str) -> Figures:
    voxels = np.random.default_rng().integers(0, 4000, (work.instances, work.rows, work.rows), dtype=np.uint16)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        source = Path(name) / "source"
        files = write_series(source, voxels, axial(voxels.shape), modality="CT", seed=name)
        receiver = kind(Path(name) / "receiver")
        receiver.start()
        try:
            with _Watch(receiver) as watch:
                if program == "dcmsend":
                    seconds, answers = _dcmsend(receiver.port, source), [0.0]
                else:
                    seconds, answers = _send(receiver.port, files, senders)
        finally:
            receiver.stop()
    return Figures(seconds, sorted(answers)[int(0.95 * len(answers))], watch.cpu, watch.memory)


class _Watch:
    """Processor time and the most memory of a receiver while something is done."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver, self._over = receiver, threading.Event()
        self.idle = self.memory = receiver.memory()
        self.cpu = 0.0

    def __enter__(self) -> _Watch:
        self._cpu = self._receiver.cpu()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.cpu = self._receiver.cpu() - self._cpu

    def _look(self) -> None:
        while not self._over.wait(0.05):
            self.memory = max(self.memory, self._receiver.memory())


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
        with tempfile.TemporaryDirectory(dir=folder) as name:
            receiver = kind(Path(name))
            receiver.start()
            try:
                with _Watch(receiver) as watch:
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


if __name__ == "__main__":
    main()
