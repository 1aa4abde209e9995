"""Writing a segmentation of 100 organs on 300 x 512 x 512, and loading such a series: Hilum beside the usual libraries."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from tests.benchmarks.seg_peers import ORGANS, PEERS
from tests.support.series import axial, write_series

SHAPE = (300, 512, 512)


def main() -> None:
    """Prints seconds, peak memory and Hilum's ratio to each peer, and what dciodvfy says of Hilum's file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        found = {peer: _measured(peer, folder) for peer in PEERS}
        table = Table(title=f"SEG of {ORGANS} organs on 300 x 512 x 512, built and saved", title_justify="left")
        for column in ("writer", "seconds", "peak MiB", "Hilum is"):
            table.add_column(column, justify="right")
        ours = found["hilum"]["seconds"]
        for peer, figures in found.items():
            seconds, mib = figures["seconds"], figures["mib"]
            table.add_row(peer, f"{seconds:.2f}", f"{mib:.0f}", f"{seconds / ours:.1f} x")
        Console().print(table)
        validator = str(Path(sys.executable).parent / "dciodvfy")
        judged = subprocess.run(
            [validator, "-new", str(folder / "hilum/seg.dcm")], capture_output=True, text=True, check=False
        )
        errors = [line for line in (judged.stdout + judged.stderr).splitlines() if line.startswith("Error")]
        print(f"dciodvfy: {len(errors)} errors")


def prepare(folder: Path) -> None:
    """The series, and labels in the form each peer takes."""
    affine = axial(SHAPE, (2.0, 0.8, 0.8))
    voxels = np.random.default_rng(0).integers(0, 2000, SHAPE, dtype=np.uint16)
    write_series(folder / "source", voxels, affine, modality="CT")
    labels = bodies()
    np.save(folder / "labels.npy", labels)
    np.save(folder / "affine.npy", affine)
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine[:, [2, 1, 0, 3]]
    nibabel.save(nibabel.Nifti1Image(labels.transpose(2, 1, 0), to_ras), folder / "labels.nii")  # type: ignore[no-untyped-call]


def bodies() -> NDArray[np.uint8]:
    """Ellipsoids of many sizes, later ones over earlier ones."""
    random = np.random.default_rng(1)
    labels = np.zeros(SHAPE, np.uint8)
    for number in range(1, ORGANS + 1):
        radii = random.uniform((10, 12, 12), (60, 60, 60))
        centre = random.uniform(radii, np.array(SHAPE) - radii)
        low, high = np.floor(centre - radii).astype(int), np.ceil(centre + radii).astype(int)
        grid = np.ogrid[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        inside = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True)) < 1
        labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))][inside] = number
    return labels


def _measured(peer: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.seg_peers", peer, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


if __name__ == "__main__":
    main()
