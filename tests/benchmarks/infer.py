"""The shipped model on the demonstration head: Hilum beside MONAI alone, cold; then options of speed beside plain float32.

Cold is from nothing to results on disk: `bundle run` reads NIfTI and writes a NIfTI mask; Hilum reads DICOM, compares
the images with the envelope, writes SEG and two SR and judges them. Options are measured in one warm process; Dice is
against the plain result. Rounds of all candidates alternate, so that a busy machine is unkind to all of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from nibabel.nifti1 import Nifti1Image
from rich.console import Console
from rich.table import Table
from torch import nn

from gateway.manifest import resolve_bundle
from tests.support.head import head, write_head
from workers.infer.model import Model, open_model
from workers.infer.predict import infer
from workers.load.volume import Volume
from workers.sample import RAS_TO_LPS

ROUNDS = 3
BUNDLE = resolve_bundle("builtin:brain_mask", Path.cwd())


def main() -> None:
    """Prints both tables."""
    with tempfile.TemporaryDirectory() as name:
        _print("cold, from nothing to results on disk", _alternate(_cold(Path(name))), {})
    model, volume = open_model(BUNDLE), _volume()
    plain = infer(model, volume)
    infer(model, volume)
    runs = {name: _option(model, volume, change) for name, change in OPTIONS.items()}
    agreement = {name: _dice(plain, run()) for name, run in runs.items()}
    _print("warm, transforms and network only", _alternate(runs), agreement)


def _cold(folder: Path) -> dict[str, Callable[[], object]]:
    image = head("axial")
    write_head(folder / "dicom")
    (folder / "nifti").mkdir()
    Nifti1Image(image.voxels.astype(np.float32), RAS_TO_LPS @ image.affine).to_filename(folder / "nifti/head.nii.gz")
    options = {
        "config_file": str(BUNDLE / "configs/inference.json"),
        "meta_file": str(BUNDLE / "configs/metadata.json"),
        "bundle_root": str(BUNDLE),
        "dataset_dir": str(folder / "nifti"),
        "output_dir": str(folder / "monai"),
    }
    alone = [sys.executable, "-P", "-c", f"from monai.bundle import run; run(**{options!r})"]
    ours = [sys.executable, "-m", "gateway.cli", "process", str(folder / "dicom"), "--model", "brain-mask"]
    ours += ["--output", str(folder / "hilum")]
    ignite = os.environ | {"PYTHONPATH": str(Path(sys.prefix) / "bundle-run")}
    return {
        "MONAI bundle run": lambda: subprocess.run(alone, check=True, capture_output=True, env=ignite, cwd=folder),
        "hilum process": lambda: subprocess.run(ours, check=True, capture_output=True),
    }


@contextmanager
def _as_it_is(_: nn.Module) -> Iterator[None]:
    yield


@contextmanager
def _half(_: nn.Module) -> Iterator[None]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield


@contextmanager
def _one_thread(_: nn.Module) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _plain_layout(network: nn.Module) -> Iterator[None]:
    """Parameters and input as PyTorch lays them out by default."""
    _lay(network, torch.contiguous_format)
    hook = network.register_forward_pre_hook(lambda _, inputs: tuple(each.contiguous() for each in inputs))
    try:
        yield
    finally:
        hook.remove()
        _lay(network, torch.channels_last_3d)


def _lay(network: nn.Module, layout: torch.memory_format) -> None:
    for parameter in network.parameters():
        if parameter.dim() == 5:
            parameter.data = parameter.data.contiguous(memory_format=layout)


OPTIONS = {
    "as shipped (float32, channels last)": _as_it_is,
    "default memory layout": _plain_layout,
    "autocast bfloat16": _half,
    "one thread": _one_thread,
}


def _option(model: Model, volume: Volume, change: Callable[[nn.Module], object]) -> Callable[[], np.ndarray]:
    def run() -> np.ndarray:
        with change(model.network):  # type: ignore[attr-defined]
            return infer(replace(model), volume)

    return run


def _volume() -> Volume:
    image = head("axial")
    return Volume(voxels=image.voxels.astype(np.float32), affine=image.affine, headers=(None,) * len(image.voxels))


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float(((one > 0) & (other > 0)).sum()) / float((one > 0).sum() + (other > 0).sum())


def _alternate(runs: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(ROUNDS):
        for name, run in runs.items():
            begun = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - begun)
    return best


def _print(title: str, seconds: Mapping[str, float], agreement: Mapping[str, float]) -> None:
    table = Table(title=f"{title}, best of {ROUNDS}", title_justify="left")
    for column in ("", "s", "of the first", "Dice"):
        table.add_column(column, justify="right")
    first = next(iter(seconds.values()))
    for name, value in seconds.items():
        dice = f"{agreement[name]:.4f}" if name in agreement else ""
        table.add_row(name, f"{value:.2f}", f"{value / first:.2f}", dice)
    Console().print(table)


if __name__ == "__main__":
    main()
