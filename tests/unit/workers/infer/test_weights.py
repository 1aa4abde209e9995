"""Forms of weights: what holds numbers is read and used, what holds a program is refused by name and never run."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from onnx import TensorProto, helper
from safetensors.numpy import save

from gateway.domain.errors import BundleInvalid
from gateway.domain.messages import JobOrder
from tests.support.bundles import write_bundle
from workers.explain.uncertainty import assess, sentences
from workers.infer.model import Model, open_model
from workers.infer.onnx_runtime import Exported
from workers.infer.predict import infer
from workers.infer.provenance import provenance
from workers.infer.scan import scan
from workers.infer.vote import majority, staple
from workers.load.volume import Volume

VOXELS = np.linspace(0, 1, 6 * 10 * 10, dtype=np.float32).reshape(6, 10, 10)
VOLUME = Volume(voxels=VOXELS, affine=np.eye(4), headers=(None,) * 6)


class Twice(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * 2


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/hilum-evil",)


def bundle_with(tmp_path: Path, name: str, data: bytes, **more: Any) -> Path:
    """A bundle whose weights are these; its network adds `level` to the image."""
    bundle = write_bundle(tmp_path / "bundle")
    source = bundle / "scripts/network.py"
    source.write_text(source.read_text().replace("pass\n", "image = image + self.level - 0.5\n"))
    (bundle / "models/model.safetensors").unlink()
    return edit(bundle, weights=put(bundle, name, data), **more)


def put(bundle: Path, name: str, data: bytes) -> dict[str, str]:
    (bundle / "models" / name).write_bytes(data)
    return {"file": f"models/{name}", "sha256": hashlib.sha256(data).hexdigest()}


def edit(bundle: Path, **changes: Any) -> Path:
    file = bundle / "hilum.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | changes))
    return bundle


def saved(value: Any, **more: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **more)
    return buffer.getvalue()


def level(value: float) -> bytes:
    return save({"level": np.full(1, value, np.float32)})


def graph() -> bytes:
    """x -> 2 x, as another tool could have exported it."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, None, None, None]) for name in "xy"]
    two = helper.make_tensor("two", TensorProto.FLOAT, [1], [2.0])
    made = helper.make_graph([helper.make_node("Mul", ["x", "two"], ["y"])], "twice", ends[:1], ends[1:], [two])
    opset = [helper.make_opsetid("", 17)]
    return bytes(onnx.helper.make_model(made, opset_imports=opset, ir_version=8).SerializeToString())


def scripted() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(Twice()), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "bright"),
    [
        ("m.safetensors", level(0.7), 0.3),
        ("m.pt", saved({"level": torch.full((1,), 0.7)}), 0.3),
        ("m.pth", saved({"level": torch.full((1,), 0.7)}, _use_new_zipfile_serialization=False), 0.3),
        ("m.pt", scripted(), 0.25),
        ("m.onnx", graph(), 0.25),
    ],
    ids=["safetensors", "state dict", "old state dict", "TorchScript", "ONNX"],
)
def test_forms_that_are_read(tmp_path: Path, name: str, data: bytes, bright: float) -> None:
    """Each decides the labels."""
    model = open_model(bundle_with(tmp_path, name, data))
    assert np.array_equal(infer(model, VOLUME), bright < VOXELS)


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("m.pt", saved({"level": torch.zeros(1), "more": Evil()}), r"calls posix\.system"),
        ("m.bin", pickle.dumps(Evil(), protocol=0), r"calls posix\.system"),
        ("m.ckpt", saved(Twice()), "m.ckpt"),
        ("m.pt", b"nothing", "holds more than tensors"),
        ("m.pkl", pickle.dumps({"level": 1.0}), "weights in .pkl are not read"),
        ("m.h5", b"\x89HDF", "weights in .h5 are not read"),
        ("m.onnx", b"nothing", "cannot be opened"),
        ("m.safetensors", b"nothing", "cannot be opened"),
    ],
)
def test_forms_that_are_refused(tmp_path: Path, name: str, data: bytes, problem: str) -> None:
    """By name, and nothing of them has run."""
    with pytest.raises(BundleInvalid, match=problem):
        open_model(bundle_with(tmp_path, name, data))
    assert not Path("/tmp/hilum-evil").exists()  # noqa: S108


def test_the_scan_names_pickles_beside_the_weights(tmp_path: Path) -> None:
    """One that nobody reads is told, not refused."""
    bundle = bundle_with(tmp_path, "m.safetensors", level(0.5))
    (bundle / "extra.pkl").write_bytes(pickle.dumps(Evil()))
    found = [(one.what, one.refuse) for one in scan(bundle) if one.place == "extra.pkl"]
    assert found == [("a pickle that calls posix.system", False)]


def ensemble(tmp_path: Path, combine: str = "mean", levels: tuple[float, ...] = (0.9, 0.5, 0.4)) -> Model:
    first, *others = levels
    bundle = bundle_with(tmp_path, "m0.safetensors", level(first), uncertainty={"method": "ensemble"})
    members = [put(bundle, f"m{number}.safetensors", level(value)) for number, value in enumerate(others, start=1)]
    return open_model(edit(bundle, ensemble={"members": members, "combine": combine}))


def test_an_ensembles_mean_and_how_its_members_differ(tmp_path: Path) -> None:
    """The result is that of the mean output; the members' volumes, entropy and agreement say how sure it is."""
    model = ensemble(tmp_path)
    labels = infer(model, VOLUME)
    assert np.array_equal(labels, VOXELS > 1 - (0.9 + 0.5 + 0.4) / 3)
    settings = model.manifest.uncertainty
    assert settings is not None
    found = assess(model, VOLUME, labels, settings)
    (spread,) = found.spreads
    assert spread.voxels == tuple(int((1 - value < VOXELS).sum()) for value in (0.9, 0.5, 0.4))
    (entropy,) = found.maps
    sure = (VOXELS < 0.1) | (VOXELS > 0.6)
    assert entropy.values[sure].max() == 0
    assert entropy.values[~sure].min() == pytest.approx(0.9183, abs=1e-4), "one of three, or two of three"
    (sentence,) = sentences((), found, {1: int(labels.sum())}, model)
    assert "3 runs of the ensemble's members agree" in sentence
    said = provenance(JobOrder(job_id="", bundle="", inputs=(), output_dir="", content_time=0.0), model, VOLUME)
    assert (said["ensemble"], len(said["weights"].split())) == ("mean", 3)


@pytest.mark.parametrize("combine", ["vote", "staple"])
def test_an_ensemble_that_votes(tmp_path: Path, combine: str) -> None:
    """Two of three decide, however sure the third is."""
    assert np.array_equal(infer(ensemble(tmp_path, combine), VOLUME), VOXELS > 0.5)


def test_votes_with_weights() -> None:
    """A heavy voice outvotes two; equals give the lower label; labels that may overlap are voted on one by one."""
    one, other = np.array([[[0, 1, 2]]], np.uint8), np.array([[[0, 2, 1]]], np.uint8)
    assert majority([one, other, other], [3, 1, 1]).tolist() == one.tolist()
    assert majority([one, other]).tolist() == [[[0, 1, 1]]]
    stacked = np.stack([one == 1, one == 2]).astype(np.uint8)
    assert np.array_equal(staple([stacked, stacked, 1 - stacked]), stacked)


def weighted(tmp_path: Path, combine: str, *weights: float | None) -> Path:
    """The ensemble above, each member with its weight."""
    bundle = bundle_with(tmp_path, "m0.safetensors", level(0.9))
    first = yaml.safe_load((bundle / "hilum.yaml").read_text())["weights"]
    members = [put(bundle, f"m{number}.safetensors", level(value)) for number, value in enumerate((0.5, 0.4), start=1)]
    each = [
        one if weight is None else one | {"weight": weight}
        for one, weight in zip([first, *members], weights, strict=True)
    ]
    return edit(bundle, weights=each[0], ensemble={"members": each[1:], "combine": combine})


def test_an_ensemble_whose_members_have_weights(tmp_path: Path) -> None:
    """They weigh outputs or votes, and are told."""
    model = open_model(weighted(tmp_path / "mean", "mean", 0.7, 0.2, 0.1))
    assert np.array_equal(infer(model, VOLUME), VOXELS > 1 - (0.7 * 0.9 + 0.2 * 0.5 + 0.1 * 0.4))
    order = JobOrder(job_id="", bundle="", inputs=(), output_dir="", content_time=0.0)
    assert provenance(order, model, VOLUME)["ensemble"] == "mean, weights 0.7 0.2 0.1"
    model = open_model(weighted(tmp_path / "vote", "vote", 0.7, 0.2, 0.1))
    assert np.array_equal(infer(model, VOLUME), VOXELS > 1 - 0.9), "one heavy voice"


@pytest.mark.parametrize(
    ("combine", "weights", "problem"),
    [
        ("mean", (0.7, 0.2, 0.2), "the weights sum to 1.1, not to 1"),
        ("mean", (0.7, 0.3, None), "a weight is for all or for none"),
        ("staple", (0.7, 0.2, 0.1), "staple finds its own"),
    ],
)
def test_weights_that_mean_nothing(
    tmp_path: Path, combine: str, weights: tuple[float | None, ...], problem: str
) -> None:
    """Refused when the manifest is read."""
    with pytest.raises(BundleInvalid, match=problem):
        open_model(weighted(tmp_path, combine, *weights))


def test_a_member_that_is_not_the_pinned_one(tmp_path: Path) -> None:
    """Each member's digest is proven before any is read."""
    bundle = bundle_with(tmp_path, "m0.safetensors", level(0.5))
    member = put(bundle, "m1.safetensors", level(0.4)) | {"sha256": "0" * 64}
    with pytest.raises(BundleInvalid, match="not the ones its manifest pins"):
        open_model(edit(bundle, ensemble={"members": [member]}))


REPLACED, GRAPH = "layers cannot be replaced", "ONNX graph, which ONNX Runtime runs as it is"
PAIRS = {
    ("m.pt", "eager", "bfloat16"): "",
    ("m.pt", "torchscript", "float32"): "",
    ("m.pt", "torchscript", "bfloat16"): "",
    ("m.pt", "onnx", "float32"): "",
    ("m.pt", "int8", "float32"): REPLACED,
    ("m.onnx", "eager", "bfloat16"): GRAPH,
    ("m.onnx", "torchscript", "float32"): GRAPH,
    ("m.onnx", "onnx", "float32"): GRAPH,
    ("m.onnx", "int8", "float32"): GRAPH,
    ("m.safetensors", "torchscript", "float32"): "",
    ("m.safetensors", "onnx", "float32"): "",
    ("m.safetensors", "eager", "bfloat16"): "",
    ("m.safetensors", "int8", "float32"): "no linear layer",
}
"""Form of weights, engine, precision -> why not."""


@pytest.mark.parametrize("pair", PAIRS, ids=" ".join)
def test_forms_with_engines(tmp_path: Path, pair: tuple[str, str, str]) -> None:
    """Each pair gives the labels of the plain network, for the next image too, or is refused with the reason."""
    name, engine, precision = pair
    data = {"m.pt": scripted(), "m.onnx": graph(), "m.safetensors": level(0.7)}[name]
    bundle = bundle_with(tmp_path, name, data, acceleration={"engine": engine, "precision": precision}, acceptance=CASE)
    if PAIRS[pair]:
        with pytest.raises(BundleInvalid, match=PAIRS[pair]):
            open_model(bundle)
        return
    model = open_model(bundle)
    assert model.plain is not None
    said = provenance(JobOrder(job_id="", bundle="", inputs=(), output_dir="", content_time=0.0), model, VOLUME)
    assert (said["engine"], "onnxruntime" in said) == (engine, engine == "onnx")
    for volume in (VOLUME, replace(VOLUME, voxels=np.ascontiguousarray(VOXELS[::-1]))):
        assert np.array_equal(infer(model, volume), infer(model.plain, volume))


CASE = [{"name": "some", "input": "acceptance", "expect": [{"segment": 1, "min": 0, "max": 1}]}]


@pytest.mark.parametrize("combine", ["mean", "vote"])
def test_an_ensemble_made_faster(tmp_path: Path, combine: str) -> None:
    """The mean, or each member that votes; the plain ones stay beside."""
    first, second = (level(value) for value in (0.9, 0.4))
    bundle = bundle_with(tmp_path, "m0.safetensors", first, acceleration={"engine": "onnx"}, acceptance=CASE)
    members = [put(bundle, "m1.safetensors", second)]
    model = open_model(edit(bundle, ensemble={"members": members, "combine": combine}))
    assert model.plain is not None
    asked = model.members if combine == "vote" else (model.network,)
    assert all(isinstance(one, Exported) for one in asked)
    assert not any(isinstance(one, Exported) for one in (*model.plain.members, model.plain.network))
    assert np.array_equal(infer(model, VOLUME), infer(model.plain, VOLUME))
