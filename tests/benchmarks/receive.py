"""Receiving CT slices by C-STORE: Hilum beside DCMTK's storescp and Orthanc, the same files from the same sender.

Only Hilum and Orthanc keep what they acknowledge through a crash of the process; only Hilum through a power cut.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from gateway.commands.orthanc import DemoOrthanc
from tests.support.orthanc import free_port
from tests.support.series import axial, write_series
from tests.support.site import Site

SLICES, SIZE, ROUNDS = 100, 512, 3
# Without these two, DCMTK and Orthanc wait 40 ms for each instance.
FAST = {"TCP_NODELAY": "1", "TCP_BUFFER_LENGTH": "262144"}


def main() -> None:
    """Prints megabytes and instances a second, and Hilum's ratio to each peer."""
    os.environ.update(FAST)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures = {peer: _measure(folder, peer, start) for peer, start in PEERS.items()}
    table = Table(title=f"{SLICES} CT slices of {SIZE} x {SIZE}, one sender, best of {ROUNDS}", title_justify="left")
    for column in ("receiver", "MB/s", "instances/s", "Hilum is"):
        table.add_column(column, justify="right")
    ours = figures["hilum"]
    for peer, seconds in figures.items():
        megabytes = SLICES * SIZE * SIZE * 2 / 1e6
        table.add_row(peer, f"{megabytes / seconds:.0f}", f"{SLICES / seconds:.0f}", f"{seconds / ours:.2f} x")
    Console().print(table)


def _measure(folder: Path, peer: str, start: Callable[[Path], Iterator[int]]) -> float:
    best = float("inf")
    with contextmanager(start)(folder / peer) as port:
        for number in range(ROUNDS):
            source = folder / f"series-{peer}-{number}"
            voxels = np.random.default_rng(number).integers(0, 4000, (SLICES, SIZE, SIZE), dtype=np.uint16)
            write_series(source, voxels, axial(voxels.shape), modality="CT", seed=f"{peer}{number}")
            best = min(best, _send(source, port))
    return best


def _send(source: Path, port: int) -> float:
    command = ["dcmsend", "-aec", "HILUM", "+sd", "127.0.0.1", str(port), str(source)]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def _hilum(folder: Path) -> Iterator[int]:
    with Site(folder, {}) as site:
        yield site.port


def _orthanc(folder: Path) -> Iterator[int]:
    orthanc = DemoOrthanc(folder, 1)
    orthanc.start()
    try:
        yield orthanc.dicom_port
    finally:
        orthanc.stop()


def _storescp(folder: Path) -> Iterator[int]:
    folder.mkdir(parents=True)
    port = free_port()
    process = subprocess.Popen(["storescp", "--fork", "+B", "-od", str(folder), str(port)])
    try:
        while subprocess.run(["echoscu", "127.0.0.1", str(port)], capture_output=True, check=False).returncode:
            time.sleep(0.05)  # between two questions; the answer ends the wait
        yield port
    finally:
        process.terminate()
        process.wait()


PEERS = {"hilum": _hilum, "orthanc": _orthanc, "storescp": _storescp}
