"""The shipped model on the demonstration head: Hilum beside MONAI alone, cold; then options of speed beside plain float32.

Cold is from nothing to results on disk: `bundle run` reads NIfTI and writes a NIfTI mask; Hilum reads DICOM, compares
the images with the envelope, writes SEG and two SR and judges them; rounds alternate, so that a busy machine is unkind to
both. Each option has a process of its own, so that its peak of memory is its own, and is measured once after a first run;
Dice is against the plain result. One that takes more than five times as long is given up.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue

import numpy as np
import torch
from nibabel.nifti1 import Nifti1Image
from rich.console import Console
from rich.table import Table
from torch import nn

from gateway.bundle.files import resolve_bundle
from gateway.bundle.network import Acceleration
from gateway.domain.messages import JobOrder
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
PATIENCE = 5.0  # times the plain run
EXPORT = 20.0  # seconds for tracing and exporting, before a first run
BUNDLE = resolve_bundle("builtin:brain_mask", Path.cwd())


def main() -> None:
    """Prints all tables; with `--alone NAME FOLDER` one line of one of them."""
    if sys.argv[1:2] == ["--alone"]:
        _alone(sys.argv[2], Path(sys.argv[3]))
        return
    with tempfile.TemporaryDirectory() as name:
        _queue(Path(name))
        _print("cold, from nothing to results on disk", _alternate(_cold(Path(name))), {})
        _job(Path(name))
        _options(Path(name))
    _quantised()


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
def _one_thread(_: Model) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _plain_layout(model: Model) -> Iterator[None]:
    """Parameters and input as PyTorch lays them out by default."""
    for parameter in model.network.parameters():
        parameter.data = parameter.data.contiguous(memory_format=torch.contiguous_format)
    model.network.register_forward_pre_hook(lambda _, inputs: tuple(each.contiguous() for each in inputs))
    yield


SHIPPED = "as shipped (float32, channels last)"
Change = Callable[[Model], AbstractContextManager[None]]
OPTIONS: dict[str, Change | Acceleration] = {
    SHIPPED: nullcontext,
    "glibc's own allocation": nullcontext,
    "default memory layout": _plain_layout,
    "one thread": _one_thread,
    "engine: torchscript": Acceleration(engine="torchscript"),
    "engine: onnx": Acceleration(engine="onnx"),
    "precision: bfloat16": Acceleration(precision="bfloat16"),
}
"""What is run inside of what, or what the manifest would say for it."""


def _alone(name: str, folder: Path) -> None:
    """One option: a first run, and another that is measured. The first option leaves its labels for the others."""
    if name != "glibc's own allocation":
        keep_memory()
    model, volume, option = open_model(BUNDLE), _volume(), OPTIONS[name]
    around = nullcontext if isinstance(option, Acceleration) else option
    if isinstance(option, Acceleration):
        model = replace(model, network=accelerated(model.network, option, model.device))
    print("open", flush=True)
    with around(model):
        infer(model, volume)
        before, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        labels = infer(model, volume)
        seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
    if name == SHIPPED:
        np.save(folder / "plain.npy", labels)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    dice = _dice(np.load(folder / "plain.npy"), labels)
    print(json.dumps([seconds, cpu, after.ru_maxrss / 1024, after.ru_minflt - before.ru_minflt, dice]))


def _options(folder: Path) -> None:
    """Time, processor time and memory of each option, as parts of the first, and what it gives for them."""
    table = Table(title="warm, transforms and network only", title_justify="left")
    for column in ("", "time", "processor time", "peak memory", "page faults", "Dice"):
        table.add_column(column, justify="right")
    plain: list[float] = []
    for name in OPTIONS:
        found = _measured(name, folder, PATIENCE * plain[0] if plain else 600.0)
        if isinstance(found, str):
            table.add_row(name, found)
            continue
        plain = plain or found
        table.add_row(
            name,
            f"{found[0] / plain[0]:.2f} ({found[0]:.2f} s)",
            f"{found[1] / plain[1]:.2f}",
            f"{found[2] / plain[2]:.2f} ({found[2]:.0f} MiB)",
            f"{found[3]:.0f}",
            f"{found[4]:.4f}",
        )
    Console(width=120).print(table)


def _measured(name: str, folder: Path, patience: float) -> list[float] | str:
    """The figures of an option, or why there are none."""
    command = [sys.executable, "-m", "tests.benchmarks.infer", "--alone", name, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "open\n":
            return (process.communicate()[1].splitlines() or ["died"])[-1][-120:]
        try:
            answer, trouble = process.communicate(timeout=2 * patience + EXPORT)
        except subprocess.TimeoutExpired:
            process.kill()
            return f"more than {PATIENCE:g}, given up"
    if process.returncode != 0:
        return (trouble.splitlines() or ["died"])[-1][-120:]
    figures: list[float] = json.loads(answer.splitlines()[-1])
    return figures


def _quantised() -> None:
    """What int8 is for: linear layers, here those of a vision transformer's twelve blocks (ViT-B, 216 tokens)."""
    blocks = (nn.Sequential(nn.Linear(768, 3072), nn.GELU(), nn.Linear(3072, 768)) for _ in range(12))
    network = nn.Sequential(*blocks).eval()
    quick = accelerated(network, Acceleration(engine="int8"), torch.device("cpu"))
    image = torch.rand(1, 216, 768)
    with torch.inference_mode():
        seconds = _alternate({"float32": lambda: network(image), "engine: int8": lambda: quick(image)})
    _print("linear layers of a vision transformer", seconds, {})


def _queue(folder: Path, studies: int = 20) -> None:
    """Studies of small images one after another in one warm process, shared by two, and in as many cold ones (measured on
    three)."""
    bundle = write_bundle(folder / "small")
    orders = []
    for number in range(studies):
        files = write_block(folder / f"in-{number}", seed=str(number))
        orders.append(job_order(files, bundle, folder / "unused", job_id=f"{number:032x}"))
    rooms = [Room(readable=(folder,), writable=folder / name) for name in ("one", "two")]
    warm, shared = (_seconds(rooms[:many], orders) for many in (1, 2))
    cold = sum(_seconds(rooms[:1], [order]) for order in orders[:3]) * studies / 3
    Console().print(
        f"{studies} studies: {warm:.1f} s queued, {shared:.1f} s shared by two processes, "
        f"{cold:.1f} s one by one and cold ({cold / warm:.1f} x)"
    )


def _seconds(rooms: Sequence[Room], orders: Sequence[JobOrder]) -> float:
    """What processes in these rooms take for all orders, their start included; each takes the next when it is free."""
    waiting: SimpleQueue[JobOrder] = SimpleQueue()
    for order in orders:
        waiting.put(order)

    def work(room: Room) -> None:
        process = ModelProcess(room)
        with suppress(Empty):
            while order := waiting.get_nowait():
                process.run(replace(order, output_dir=str(room.writable / order.job_id)), timeout=120)
        process.close()

    begun = time.perf_counter()
    with ThreadPoolExecutor(len(rooms)) as threads:
        list(threads.map(work, rooms))
    return time.perf_counter() - begun


def _job(folder: Path) -> None:
    """One job in a warm process, by its stages: what there is beside the model, and judging what was written."""
    (folder / "warm").mkdir()
    files = write_head(folder / "job")
    process = ModelProcess(Room(readable=(folder, BUNDLE), writable=folder / "warm"))
    best: dict[str, float] = {}
    for number in range(ROUNDS + 1):
        output = folder / f"warm/{number}"
        output.mkdir()
        begun = time.perf_counter()
        outcome = process.run(job_order(files, BUNDLE, output, job_id=f"{number:032x}"), timeout=120)
        took = {**outcome.timings, "all": time.perf_counter() - begun}
        took["beside the model"] = took["all"] - took["infer"]
        if number:  # the first is cold
            best = {name: min(value, best.get(name, value)) for name, value in took.items()}
    process.close()
    said = ", ".join(f"{name} {value:.2f}" for name, value in best.items())
    Console().print(f"a job of {len(files)} slices in a warm process, s, best of {ROUNDS}: {said}")


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
