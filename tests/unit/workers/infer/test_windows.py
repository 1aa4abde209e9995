"""What a network sees at once: as it was trained, cropped to what is there, and no more than memory takes."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from monai.inferers.inferer import SimpleInferer, SlidingWindowInferer
from torch import nn

from gateway.domain.errors import BundleInvalid
from tests.support.bundles import write_bundle
from tests.support.series import axial
from workers.infer import windows
from workers.infer.forward import forward
from workers.infer.model import open_model
from workers.infer.predict import infer, prepare
from workers.infer.windows import affordable, free_bytes, window, window_bytes
from workers.load.volume import Volume

CPU = torch.device("cpu")
INSTANCE = "image = self.norm(image)"
WINDOWS = {"_target_": "SlidingWindowInferer", "roi_size": [8, 8, 8], "overlap": 0.5}


def block() -> Volume:
    """A head that is not there: bright in the middle of much air."""
    voxels = np.zeros((16, 24, 24), np.float32)
    voxels[6:11, 8:17, 7:15] = 400
    voxels[7:10, 10:15, 9:13] = 900
    return Volume(voxels=voxels, affine=axial(voxels.shape), headers=(None,) * 16)


def changed(tmp_path: Path, *, manifest: dict[str, Any] | None = None, network: str = "pass", **config: Any) -> Path:
    """The `threshold` bundle with keys of its manifest and configuration replaced."""
    bundle = write_bundle(tmp_path / "b")
    script, file, keys = bundle / "scripts/network.py", bundle / "configs/inference.json", bundle / "hilum.yaml"
    source = script.read_text().replace("pass\n", f"{network}\n")
    if network == INSTANCE:
        source = source.replace("self.drop =", "self.norm = torch.nn.InstanceNorm3d(1)\n        self.drop =")
    script.write_text(source)
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    keys.write_text(yaml.safe_dump(yaml.safe_load(keys.read_text()) | (manifest or {})))
    return bundle


def test_a_network_that_normalises_by_instance_sees_patches_of_its_training(tmp_path: Path) -> None:
    """Windows of the patch's size run; the whole volume, which is another image to it, is refused with what to do."""
    trained = {"training": {"patch": [8, 8, 8]}}
    assert infer(
        open_model(changed(tmp_path / "1", manifest=trained, network=INSTANCE, inferer=WINDOWS)), block()
    ).any()
    for number, inferer in enumerate(({"_target_": "SimpleInferer"}, WINDOWS | {"roi_size": [8, 8, -1]})):
        model = open_model(changed(tmp_path / f"2{number}", manifest=trained, network=INSTANCE, inferer=inferer))
        with pytest.raises(BundleInvalid, match=r"patches of 8 x 8 x 8 .*would see .* SlidingWindowInferer") as error:
            infer(model, block())
        assert error.value.code == "patch"


def test_others_may_see_the_whole(tmp_path: Path) -> None:
    """Without statistics of what it sees a network does not mind; nor does one whose training nobody told."""
    for number, (manifest, network) in enumerate((({"training": {"patch": [8, 8, 8]}}, "pass"), ({}, INSTANCE))):
        assert infer(open_model(changed(tmp_path / str(number), manifest=manifest, network=network)), block()).any()


def test_what_is_seen_at_once() -> None:
    """As MONAI reads roi_size: one number for all axes, and nothing positive for a whole axis."""
    shape = (1, 1, 40, 50, 60)
    assert window(SimpleInferer(), shape) == (40, 50, 60)
    assert window(SlidingWindowInferer(roi_size=32), shape) == (32, 32, 32)
    assert window(SlidingWindowInferer(roi_size=(32, -1, 0)), shape) == (32, 50, 60)


def test_memory_of_a_window_is_told_without_running_it() -> None:
    """Input, and of two layers the tensors that live at the same time; twice for two windows. No value of any is looked at."""
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 2, 1))
    voxels = 16**3 * 4
    found = window_bytes(network, (1, 1, 16, 16, 16), torch.float32)
    assert found is not None
    assert (found[0] >= (1 + 4 + 2) * voxels, found[0] < (1 + 4 + 2) * voxels * 1.1, found[1]) == (True, True, 2)
    twice = window_bytes(network, (2, 1, 16, 16, 16), torch.float32)
    assert twice is not None
    assert twice[0] == pytest.approx(2 * found[0], rel=0.02)
    assert window_bytes(Looks(), (1, 1, 4, 4, 4), torch.float32) is None


class Looks(nn.Module):
    """Decides by a value, so that nobody knows without running it."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The image, or another."""
        return image if float(image.max()) > 0 else image + 1


def test_as_many_windows_as_memory_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chosen before anything is run, told, and no more than the bundle says; its own number stands again afterwards."""
    network = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.Conv3d(8, 1, 1))
    inferer = SlidingWindowInferer(roi_size=(16, 16, 16), sw_batch_size=8, overlap=0.0)
    image = torch.rand(1, 1, 32, 32, 32)
    needed = window_bytes(network, (1, 1, 16, 16, 16), torch.float32)
    assert needed is not None
    stitched = 2 * 32**3 * 4
    sizes: list[int] = []
    network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    for windows_in_memory, expected in ((100, 8), (3, 3), (0, 1)):
        free = int((windows_in_memory + 0.5) * needed[0] + stitched) / 0.8
        monkeypatch.setattr(windows, "free_bytes", lambda _, free=free: int(free))
        notes: list[str] = []
        sizes.clear()
        with torch.inference_mode():
            forward(inferer, network, image, notes.append)
        assert (max(sizes), inferer.sw_batch_size) == (expected, 8)
        assert notes == ([] if expected == 8 else [f"window batch {expected} by free memory"])


def test_free_memory_is_what_limit_and_machine_leave() -> None:
    """A lower limit for the process leaves less; the machine's own is the rest."""
    free = free_bytes(CPU)
    assert free is not None
    assert free > 2**28
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (0, hard))
    try:
        assert free_bytes(CPU) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def test_one_window_at_a_time_is_nothing_to_choose() -> None:
    """Nor is a network that tells nothing."""
    image = torch.rand(1, 1, 8, 8, 8)
    assert affordable(SlidingWindowInferer(roi_size=4, sw_batch_size=1), nn.Identity(), image) is None
    assert affordable(SlidingWindowInferer(roi_size=4, sw_batch_size=4), Looks(), image) is None


@pytest.mark.parametrize("back", ["Invertd", "affine"])
def test_a_crop_to_the_foreground_comes_back_by_geometry(tmp_path: Path, back: str) -> None:
    """CropForegroundd shows the network less; undone by Invertd or by the affine, the labels are those of the whole."""
    bundle = changed(tmp_path)
    file = bundle / "configs/inference.json"
    config = json.loads(file.read_text())
    crop = {"_target_": "CropForegroundd", "keys": "image", "source_key": "image", "margin": 1}
    config["preprocessing"]["transforms"].insert(1, crop)
    invert = {"_target_": "Invertd", "keys": "pred", "orig_keys": "image", "transform": "@preprocessing"}
    config["postprocessing"]["transforms"] += [invert | {"nearest_interp": True}] if back == "Invertd" else []
    file.write_text(json.dumps(config))
    model, volume = open_model(bundle), block()
    _, batch = prepare(model, volume)
    assert batch.shape == (1, 1, 7, 11, 10)
    assert np.array_equal(infer(model, volume), volume.voxels > 450)
