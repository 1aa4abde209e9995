"""The shipped model on the demonstration head: Hilum beside MONAI alone, cold; then options of speed beside plain float32.

Cold is from nothing to results on disk: `bundle run` reads NIfTI and writes a NIfTI mask; Hilum reads DICOM, compares
the images with the envelope, writes SEG and two SR and judges them. Options are measured in one warm process; Dice is
against the plain result. Rounds of all candidates alternate, so that a busy machine is unkind to all of them.
"""

from __future__ import annotations

import compileall
import json
import os
import resource
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

from gateway.domain.errors import BundleInvalid
from gateway.manifest import Acceleration, resolve_bundle
from tests.support.block import write_block
from tests.support.bundles import write_bundle
from tests.support.head import head, write_head
from tests.support.series import job_order
from workers.child import keep_memory
from workers.infer.accelerate import accelerated
from workers.infer.model import Model, open_model
from workers.infer.predict import infer
from workers.load.volume import Volume
from workers.sample import RAS_TO_LPS
from workers.sandbox.room import Room
from workers.supervisor import ModelProcess

ROUNDS = 3
BUNDLE = resolve_bundle("builtin:brain_mask", Path.cwd())


def main() -> None:
    """Prints all tables; with `--alone NAME` one line of one of them."""
    if sys.argv[1:2] == ["--alone"]:
        _alone(sys.argv[2])
        return
    with tempfile.TemporaryDirectory() as name:
        _queue(Path(name))
        _print("cold, from nothing to results on disk", _alternate(_cold(Path(name))), {})
    model, volume = open_model(BUNDLE), _volume()
    plain = infer(model, volume)
    infer(model, volume)
    runs = {name: _option(model, volume, *option) for name, option in OPTIONS.items()}
    agreement = {name: _dice(plain, run()) for name, run in runs.items()}
    _print("warm, transforms and network only", _alternate(runs), agreement)
    _processes()
    _refused(model)


def _cold(folder: Path) -> dict[str, Callable[[], object]]:
    for package in ("gateway", "workers"):  # MONAI was compiled when it was installed
        compileall.compile_dir(package, quiet=1)
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


Change = Callable[[nn.Module], object]

OPTIONS: dict[str, tuple[Change, Acceleration | None]] = {
    "as shipped (float32, channels last)": (_as_it_is, None),
    "default memory layout": (_plain_layout, None),
    "one thread": (_one_thread, None),
    "precision: bfloat16": (_as_it_is, Acceleration(precision="bfloat16")),
    "engine: torchscript": (_as_it_is, Acceleration(engine="torchscript")),
}
"""What is run inside of what, and what the manifest would say for it."""


def _option(model: Model, volume: Volume, change: Change, wanted: Acceleration | None) -> Callable[[], np.ndarray]:
    faster = replace(model, network=accelerated(model.network, wanted, model.device))

    def run() -> np.ndarray:
        with change(model.network):  # type: ignore[attr-defined]
            return infer(faster, volume)

    return run


def _refused(model: Model) -> None:
    """What cannot be had here, and why."""
    for engine in ("int8", "compile", "onnx", "tensorrt"):
        try:
            accelerated(model.network, Acceleration(engine=engine), model.device)
        except BundleInvalid as error:
            Console().print(error.message)


def _alone(name: str) -> None:
    """One option in a process of its own, so that its peak of memory is its own: mapped by `keep_memory`, or by default."""
    if name == "kept":
        keep_memory()
    model, volume = open_model(BUNDLE), _volume()
    wanted = next((option[1] for key, option in OPTIONS.items() if key == name), None)
    run = _option(model, volume, _as_it_is, wanted)
    run()
    before = resource.getrusage(resource.RUSAGE_SELF)
    begun = time.perf_counter()
    for _ in range(ROUNDS):
        run()
    seconds = (time.perf_counter() - begun) / ROUNDS
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / ROUNDS
    print(
        json.dumps(
            {"s": seconds, "cpu": cpu, "MiB": after.ru_maxrss / 1024, "faults": after.ru_minflt - before.ru_minflt}
        )
    )


def _processes() -> None:
    """Time, processor time and peak memory of options, each in a fresh process."""
    table = Table(title=f"each in a process of its own, mean of {ROUNDS}", title_justify="left")
    for column in ("", "s", "processor s", "peak MiB", "page faults"):
        table.add_column(column, justify="right")
    names = {"glibc's own allocation": "plain", "as the worker allocates": "kept"}
    names |= {name: name for name in OPTIONS if ":" in name}
    for title, name in names.items():
        command = [sys.executable, "-m", "tests.benchmarks.infer", "--alone", name]
        ran = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(ran.stdout.splitlines()[-1])
        table.add_row(
            title, *(f"{found[key]:.2f}" for key in ("s", "cpu")), f"{found['MiB']:.0f}", str(found["faults"])
        )
    Console().print(table)


def _queue(folder: Path, studies: int = 20) -> None:
    """Studies of small images one after another in one warm process, beside as many cold ones (measured on three)."""
    bundle = write_bundle(folder / "small")
    orders = []
    for number in range(studies):
        files = write_block(folder / f"in-{number}", seed=str(number))
        (folder / f"out-{number}").mkdir()
        orders.append(job_order(files, bundle, folder / f"out-{number}", job_id=f"{number:032x}"))
    room = Room(readable=(folder,), writable=folder)
    begun = time.perf_counter()
    process = ModelProcess(room)
    for order in orders:
        process.run(order, timeout=120)
    process.close()
    warm = time.perf_counter() - begun
    begun = time.perf_counter()
    for order in orders[:3]:
        process = ModelProcess(room)
        process.run(order, timeout=120)
        process.close()
    cold = (time.perf_counter() - begun) * studies / 3
    Console().print(f"{studies} studies: {warm:.1f} s queued, {cold:.1f} s one by one and cold ({cold / warm:.1f} x)")


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
