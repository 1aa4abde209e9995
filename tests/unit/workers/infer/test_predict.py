"""Bundles opened and run: what is believed, where labels land, and what output is no output."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gateway.bundle.files import bundle_digest, resolve_bundle
from gateway.domain.errors import BundleInvalid, ModelOutputInvalid
from tests.support.bundles import write_bundle
from workers.infer.model import open_model
from workers.infer.predict import infer
from workers.load.volume import Volume


def volume(affine: np.ndarray | None = None) -> Volume:
    """A bright block off the middle in every direction."""
    voxels = np.random.default_rng(3).uniform(0, 100, (10, 16, 20)).astype(np.float32)
    voxels[2:4, 5:11, 1:8] = 900
    return Volume(voxels=voxels, affine=np.eye(4) if affine is None else affine, headers=(None,) * 10)


@pytest.mark.parametrize(
    "affine",
    [np.eye(4), np.diag([-2.0, 1.0, 3.0, 1.0]), np.eye(4)[[2, 0, 1, 3]], np.diag([0.5, 0.5, -4.0, 1.0])[[1, 0, 2, 3]]],
    ids=["identity", "left-handed", "turned", "turned and left-handed"],
)
def test_labels_lie_where_the_voxels_are(tmp_path: Path, affine: np.ndarray) -> None:
    """Whatever the axes mean in the patient, a label has the index of its voxel."""
    image = volume(affine)
    labels = infer(open_model(write_bundle(tmp_path / "b")), image)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, image.voxels > 450)


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1), (-1, -1, -1)])
@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_bundle_sees_the_patient_the_way_monai_says(
    tmp_path: Path, axes: tuple[int, int, int], signs: tuple[int, int, int]
) -> None:
    """A model that finds only what is right, back and low in RAS finds it there, whatever axes the series has."""
    bundle = write_bundle(tmp_path / "b")
    file = bundle / "configs/inference.json"
    config = json.loads(file.read_text())
    turn = {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None}
    config["preprocessing"]["transforms"].append(turn)
    back = {"_target_": "Invertd", "keys": "pred", "orig_keys": "image", "transform": "@preprocessing"}
    config["postprocessing"]["transforms"].insert(0, back)
    file.write_text(json.dumps(config))
    source = (bundle / "scripts/network.py").read_text()
    corner = (
        "a, b, c = (n // 2 for n in image.shape[2:]); image[:, :, :a] = 0; image[:, :, :, b:] = 0; image[..., c:] = 0"
    )
    (bundle / "scripts/network.py").write_text(source.replace("pass\n", corner + "\n"))

    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, axes] * signs
    voxels = np.full((8, 10, 12), 900, dtype=np.float32)
    voxels[0, 0, 0] = 0
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(voxels.shape) - 1) / 2)
    found = infer(open_model(bundle), Volume(voxels=voxels, affine=affine, headers=(None,) * 8))
    # LPS: x grows to the left, y to the back, z to the head.
    x, y, z = (np.argwhere(found) @ affine[:3, :3].T + affine[:3, 3]).T
    assert found.sum() in (8 * 10 * 12 // 8, 8 * 10 * 12 // 8 - 1)
    assert x.max() < 0
    assert y.min() > 0
    assert z.max() < 0


def test_nothing_found_is_a_result(tmp_path: Path) -> None:
    """An empty label volume passes."""
    assert not infer(open_model(write_bundle(tmp_path / "b", "empty")), volume()).any()


@pytest.mark.parametrize(
    ("behaviour", "code"), [("nan", "output_not_finite"), ("shape", "output_shape"), ("values", "output_values")]
)
def test_output_that_breaks_the_promise_is_refused(tmp_path: Path, behaviour: str, code: str) -> None:
    """NaN, another shape and unknown labels never become labels."""
    with pytest.raises(ModelOutputInvalid) as error:
        infer(open_model(write_bundle(tmp_path / "b", behaviour)), volume())
    assert error.value.code == code


def test_bundles_with_modules_of_the_same_name_do_not_mix(tmp_path: Path) -> None:
    """Both have scripts/network.py; each runs its own."""
    working, empty = write_bundle(tmp_path / "a"), write_bundle(tmp_path / "b", "empty")
    assert infer(open_model(working), volume()).any()
    assert not infer(open_model(empty), volume()).any()
    assert infer(open_model(working), volume()).any()


def test_the_identity_names_the_bundle_as_the_gateway_does(tmp_path: Path) -> None:
    """Name, version and the digest that the gateway computes without torch."""
    bundle = write_bundle(tmp_path / "b")
    identity = open_model(bundle).identity
    assert (identity.name, identity.version, identity.digest) == ("test_threshold", "1.0.0", bundle_digest(bundle))


def test_weights_are_checked_before_anything_of_the_bundle_runs(tmp_path: Path) -> None:
    """With other weights than the manifest pins, not even the bundle's scripts are imported."""
    bundle = write_bundle(tmp_path / "b")
    ran = tmp_path / "ran"
    (bundle / "scripts/network.py").write_text(f"open({str(ran)!r}, 'w')")
    weights = bundle / "models/model.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(BundleInvalid, match="not the ones its manifest pins") as error:
        open_model(bundle)
    assert error.value.code == "wrong_weights"
    assert not ran.exists()


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    """A state dict that is a program is no state dict, even with the right digest."""

    class Program:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "ran",)

    bundle = write_bundle(tmp_path / "b")
    torch.save({"level": Program()}, bundle / "models/model.pt")
    digest = hashlib.sha256((bundle / "models/model.pt").read_bytes()).hexdigest()
    pinned = hashlib.sha256((bundle / "models/model.safetensors").read_bytes()).hexdigest()
    text = (bundle / "hilum.yaml").read_text().replace("model.safetensors", "model.pt").replace(pinned, digest)
    (bundle / "hilum.yaml").write_text(text)
    with pytest.raises(BundleInvalid):
        open_model(bundle)
    assert not (tmp_path / "ran").exists()


def test_missing_weights_say_how_to_get_them(tmp_path: Path) -> None:
    """The one thing a newcomer forgets."""
    bundle = write_bundle(tmp_path / "b")
    (bundle / "models/model.safetensors").unlink()
    with pytest.raises(BundleInvalid, match="hilum models prepare"):
        open_model(bundle)


@pytest.mark.parametrize("broken", ["{", "[]", '{"network_def": {"_target_": "scripts.network.NoSuch"}}'])
def test_a_broken_configuration_is_one_clear_sentence(tmp_path: Path, broken: str) -> None:
    """Whatever MONAI raises becomes BundleInvalid with the bundle's name."""
    bundle = write_bundle(tmp_path / "b")
    (bundle / "configs/inference.json").write_text(broken)
    with pytest.raises(BundleInvalid, match="b cannot be opened") as error:
        open_model(bundle)
    assert "\n" not in error.value.message


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    """A state dict that does not fit the network is not loaded in part."""
    bundle = write_bundle(tmp_path / "b")
    source = (bundle / "scripts/network.py").read_text()
    (bundle / "scripts/network.py").write_text(source.replace("self.level", "self.other").replace("level", "other"))
    with pytest.raises(BundleInvalid):
        open_model(bundle)


def test_the_shipped_bundle_has_the_parameters_it_says() -> None:
    """brain_mask opens with its pinned weights, dropout off."""
    model = open_model(resolve_bundle("builtin:brain_mask", Path.cwd()))
    assert sum(parameter.numel() for parameter in model.network.parameters()) == 171_465
    assert not model.network.training


_ANEW = """

class Anew:
    def __call__(self, data):
        from monai.data import MetaTensor

        return {**data, "pred": MetaTensor(data["pred"].as_tensor())}
"""


def test_labels_that_have_lost_their_place_are_refused(tmp_path: Path) -> None:
    """A transform that makes a new tensor leaves MONAI's affine for one without any: one millimetre a voxel, at the origin."""
    bundle = write_bundle(tmp_path / "b")
    file = bundle / "configs/inference.json"
    config = json.loads(file.read_text())
    config["postprocessing"]["transforms"].append({"_target_": "scripts.network.Anew"})
    script = bundle / "scripts/network.py"
    script.write_text(script.read_text() + _ANEW)
    file.write_text(json.dumps(config))
    model = open_model(bundle)
    with pytest.raises(ModelOutputInvalid) as caught:
        infer(model, volume(np.diag([2.0, 1.0, 1.0, 1.0])))
    assert caught.value.code == "output_grid"
