"""Loading a CT series of 300 slices to a volume with its geometry: Hilum beside MONAI's readers, values and affine compared."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from tests.support.result_set import manifest
from tests.support.series import axial, job_order, write_series
from workers.load.series import load

SHAPE, ROUNDS = (300, 512, 512), 3
Grid = tuple[NDArray[np.float32], NDArray[np.float64]]
"""Values as (slices, rows, columns), and the affine from there to LPS mm."""


def main() -> None:
    """Prints seconds, best of a few, and Hilum's ratio to each peer; a peer that reads other values is said to."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        voxels = np.random.default_rng(0).integers(0, 4000, SHAPE, dtype=np.uint16)
        write_series(folder / "source", voxels, axial(SHAPE, (1.0, 0.7, 0.7)), modality="CT", intercept=-1024)
        found = _measured({name: start(folder) for name, start in PEERS.items()})
    table = Table(title="300 CT slices of 512 x 512 to a volume", title_justify="left")
    for column in ("reader", "seconds", "same values and affine", "Hilum is"):
        table.add_column(column, justify="right")
    ours, (values, affine) = found["hilum"]
    for name, (seconds, grid) in found.items():
        same = np.array_equal(grid[0], values) and np.allclose(grid[1], affine, atol=1e-3)
        table.add_row(name, f"{seconds:.2f}", "yes" if same else "no", f"{seconds / ours:.1f} x")
    Console().print(table)


def _hilum(folder: Path) -> Callable[[], Grid]:
    order = job_order(sorted((folder / "source").iterdir()), folder, folder / "result")
    contract = manifest(resources={"memory_mib": 65536})

    def run() -> Grid:
        volume = load(order, contract)  # checks every file's digest too
        return volume.voxels, volume.affine

    return run


def _monai(reader: str) -> Callable[[Path], Callable[[], Grid]]:
    def start(folder: Path) -> Callable[[], Grid]:
        from monai.transforms.io.array import LoadImage

        transform: Any = LoadImage(reader=reader, image_only=True)

        def run() -> Grid:
            image = transform(str(folder / "source"))
            affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(image.affine, np.float64)
            return _as_slices(np.asarray(image), affine)

        return run

    return start


def _as_slices(values: NDArray[np.float32], affine: NDArray[np.float64]) -> Grid:
    """From (columns, rows, slices) in either direction to (slices, rows, columns) from feet to head."""
    values, affine = values.transpose(2, 1, 0), affine[:, [2, 1, 0, 3]]
    if affine[2, 0] < 0:
        affine = affine.copy()
        affine[:3, 3] += affine[:3, 0] * (len(values) - 1)
        affine[:3, 0] *= -1
        values = values[::-1]
    return values, affine


PEERS = {"hilum": _hilum, "MONAI ITKReader": _monai("ITKReader"), "MONAI PydicomReader": _monai("PydicomReader")}


def _measured(readers: dict[str, Callable[[], Grid]]) -> dict[str, tuple[float, Grid]]:
    """Best time and grid of each, all of them in each round: other work on the machine meets them alike."""
    best: dict[str, tuple[float, Grid]] = {}
    for _ in range(ROUNDS):
        for name, run in readers.items():
            started = time.perf_counter()
            grid = run()
            seconds = time.perf_counter() - started
            best[name] = (min(seconds, best[name][0]) if name in best else seconds, grid)
    return best


if __name__ == "__main__":
    main()
