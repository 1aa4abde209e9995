"""Networks made faster: the same answer within reach, a clear sentence for what cannot be had, less memory where there is none."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from monai.inferers.inferer import SlidingWindowInferer
from torch import nn

from gateway.bundle.files import read_manifest
from gateway.bundle.network import Acceleration
from gateway.domain.errors import BundleInvalid, ModelOutputInvalid
from tests.support.bundles import write_bundle
from tests.support.series import axial
from workers.infer.accelerate import accelerated
from workers.infer.agreement import compare
from workers.infer.answer import Answer
from workers.infer.forward import forward, is_out_of_memory
from workers.infer.model import Model, open_model
from workers.infer.onnx_runtime import OnnxNetwork
from workers.infer.predict import infer
from workers.load.volume import Volume

CPU = torch.device("cpu")


def network() -> nn.Module:
    """A convolution and a linear layer."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 2, 1), nn.Flatten(2), nn.Linear(512, 3))


@pytest.mark.parametrize(
    ("wanted", "near"),
    [
        (Acceleration(), 0.0),
        (Acceleration(engine="torchscript"), 1e-5),
        (Acceleration(precision="bfloat16"), 0.02),
        (Acceleration(engine="torchscript", precision="bfloat16"), 0.02),
        (Acceleration(engine="onnx"), 1e-5),
        (Acceleration(engine="int8"), 0.02),
    ],
)
def test_the_same_within_reach(wanted: Acceleration, near: float) -> None:
    """In float32 again, whatever it was computed in; twice the same, and for another batch too."""
    plain = network().eval()
    image = torch.rand(1, 1, 8, 8, 8)
    with torch.inference_mode():
        made = accelerated(plain, wanted, CPU)
        for one in (image, torch.cat([image, image])):
            found = made(one)
            assert found.dtype == torch.float32
            assert torch.equal(found, made(one))
            assert (found - plain(one)).abs().max() <= near


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (Acceleration(engine="tensorrt"), "TensorRT is not installed"),
        (Acceleration(engine="onnx", precision="bfloat16"), "engine: onnx has a precision of its own"),
        (Acceleration(engine="int8", precision="bfloat16"), "engine: int8 has a precision of its own"),
        (Acceleration(engine="compile"), "starts a compiler"),
        (Acceleration(precision="float16"), "use bfloat16"),
    ],
)
def test_what_cannot_be_had_is_said(wanted: Acceleration, why: str) -> None:
    """One sentence with what to do instead."""
    with pytest.raises(BundleInvalid, match=why):
        accelerated(network(), wanted, CPU)


def test_int8_needs_something_to_quantise() -> None:
    """Convolutions in int8 are slower on a processor (docs/benchmarks.md)."""
    with pytest.raises(BundleInvalid, match="no linear layer"):
        accelerated(nn.Conv3d(1, 1, 1), Acceleration(engine="int8"), CPU)


class Hungry(nn.Module):
    """Has memory for so many windows at once."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.seen = most, list[int]()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The image, or no memory."""
        self.seen.append(len(image))
        if len(image) > self.most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
        return image * 2


def test_less_memory_step_by_step() -> None:
    """The window batch is halved until it fits; what was given up is told; the next image begins with what fitted."""
    inferer = SlidingWindowInferer(roi_size=(4, 4, 4), sw_batch_size=8, overlap=0.0)
    image = torch.rand(1, 1, 8, 8, 8)
    notes: list[str] = []
    hungry = Hungry(2)
    found = forward(inferer, hungry, image, notes.append)
    assert torch.equal(found, image * 2)
    assert notes == ["window batch 4", "window batch 2"]
    assert (inferer.sw_batch_size, hungry.seen) == (8, [8, 4, 2, 2, 2, 2])
    notes.clear()
    forward(inferer, hungry, image, notes.append)
    assert (notes, inferer.sw_batch_size, hungry.seen[6:]) == (["window batch 2"], 8, [2, 2, 2, 2])


def test_no_memory_at_all_is_an_error() -> None:
    """The last step's error passes through, and so does any other."""
    inferer = SlidingWindowInferer(roi_size=(4, 4, 4), sw_batch_size=2, overlap=0.0)
    notes: list[str] = []
    with pytest.raises(RuntimeError, match="can't allocate"):
        forward(inferer, Hungry(0), torch.rand(1, 1, 8, 8, 8), notes.append)
    assert notes == ["window batch 1"]
    with pytest.raises(RuntimeError, match="channels"):
        forward(inferer, nn.Conv3d(2, 1, 1), torch.rand(1, 1, 4, 4, 4), notes.append)


def model_and_volume(tmp_path: Path) -> tuple[Model, Volume]:
    """The network of the `threshold` bundle, as if made faster, on a block."""
    model = open_model(write_bundle(tmp_path / "b"))
    voxels = np.zeros((8, 16, 16), np.float32)
    voxels[2:6, 4:12, 4:12] = 100
    manifest = model.manifest.model_copy(update={"acceleration": Acceleration(engine="torchscript")})
    volume = Volume(voxels=voxels, affine=axial(voxels.shape), headers=(None,) * 8)
    return replace(model, manifest=manifest, plain=model), volume


def test_what_disagrees_with_itself_is_not_admitted(tmp_path: Path) -> None:
    """The same labels agree by 1; a network that became another is named with how far it is off."""
    model, volume = model_and_volume(tmp_path)
    labels = infer(model, volume)
    found = compare(model, volume, Answer(labels=labels))
    assert (found["agreement"], found["speed"] > 0) == (1.0, True)
    other = labels.copy()
    other[2] = 0
    with pytest.raises(ModelOutputInvalid, match=r"agrees with itself by 0\.857"):
        compare(model, volume, Answer(labels=other))


def test_acceleration_needs_cases(tmp_path: Path) -> None:
    """Nobody could say whether it agrees."""
    bundle = write_bundle(tmp_path / "b")
    with (bundle / "hilum.yaml").open("a") as manifest:
        manifest.write("acceleration: {engine: torchscript}\n")
    with pytest.raises(BundleInvalid, match="acceptance cases"):
        read_manifest(bundle)


def test_onnx_needs_words_for_the_network_and_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be exported is said with the reason; so is a machine without ONNX Runtime."""
    made = accelerated(Inverse(), Acceleration(engine="onnx"), CPU)
    with pytest.raises(BundleInvalid, match=r"engine: onnx cannot be used: the network cannot be exported .*inv"):
        made(torch.eye(3))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BundleInvalid, match=r"not installed: pip install 'hilum\[onnx\]'"):
        accelerated(network(), Acceleration(engine="onnx"), CPU)


class Inverse(nn.Module):
    """ONNX knows no inverse of a matrix."""

    def forward(self, matrix: torch.Tensor) -> torch.Tensor:
        """The inverse."""
        return torch.linalg.inv(matrix)


def test_onnx_runtime_tells_of_no_memory_as_all_do() -> None:
    """Running and exporting, so that the ladder has its chance: it is no fault of the network."""
    wide = nn.Conv3d(1, 64, 1)
    image = torch.rand(1, 1, 96, 96, 96)  # 216 MiB come out
    file = BytesIO()
    torch.onnx.export(wide, (image,), file, dynamo=False)  # type: ignore[arg-type]
    graph, made = OnnxNetwork(file.getvalue(), "m.onnx"), accelerated(wide, Acceleration(engine="onnx"), CPU)
    for network in (graph, made):
        with little_memory(), pytest.raises((MemoryError, RuntimeError)) as error:
            network(image)
        assert is_out_of_memory(error.value)
    assert made(image).shape == (1, 64, 96, 96, 96), "with memory again, it runs"


@contextmanager
def little_memory() -> Iterator[None]:
    """64 MiB more than the process has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (psutil.Process().memory_info().data + 2**26, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
