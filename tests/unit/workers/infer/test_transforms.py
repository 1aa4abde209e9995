"""Transforms for bundles: they do what they say, keep the grid, and a configuration may name them and nothing beside them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from gateway.domain.errors import BundleInvalid
from tests.support.bundles import write_bundle
from workers.infer.model import open_model
from workers.infer.transforms import BiasCorrectiond, Denoised

AFFINE = torch.diag(torch.tensor([2.0, 1.0, 1.0, 1.0], dtype=torch.float64))


def ball(noise: float = 0.0) -> np.ndarray:
    """A bright ball in dark air, (32, 40, 40)."""
    place = np.stack(np.meshgrid(*(np.arange(n) - n / 2 for n in (32, 40, 40)), indexing="ij"))
    inside = (place**2).sum(axis=0) < 14**2
    return (inside * 100 + np.random.default_rng(0).normal(0, noise, inside.shape)).astype(np.float32)


def changed(transform: object, *channels: np.ndarray) -> MetaTensor:
    image = MetaTensor(torch.from_numpy(np.stack(channels)), affine=AFFINE)
    result: MetaTensor = transform({"image": image})["image"]  # type: ignore[operator]
    assert torch.equal(result.affine, AFFINE) and result.shape == image.shape
    return result


def test_bias_is_taken_out() -> None:
    """Brightness that doubles across the body is even afterwards; a channel of zeros stays one."""
    uneven = ball() * np.linspace(0.7, 1.4, 40, dtype=np.float32)
    result = changed(BiasCorrectiond("image", shrink=2), uneven, np.zeros_like(uneven)).numpy()
    inside = ball() > 50
    spread = [each[inside].std() / each[inside].mean() for each in (uneven, result[0])]
    assert spread[1] < 0.4 * spread[0]
    assert not result[1].any()


def test_noise_is_taken_out() -> None:
    """Less than half the noise in the body, and its edge where it was."""
    result = changed(Denoised("image"), ball(8.0)).numpy()[0]
    inside = ball() > 50
    assert result[inside].std() < 0.6 * ball(8.0)[inside].std()
    assert (result > 50).sum() == pytest.approx(inside.sum(), rel=0.02)


@pytest.mark.parametrize(
    ("target", "taken"),
    [("workers.infer.transforms.Denoised", True), ("workers.infer.transforms.import_module", False),
     ("workers.infer.transforms._simpleitk", False), ("workers.child.main", False)],
)  # fmt: skip
def test_a_configuration_may_name_them(tmp_path: Path, target: str, taken: bool) -> None:
    """And nothing else of ours."""
    bundle = write_bundle(tmp_path / "b")
    file = bundle / "configs/inference.json"
    config = json.loads(file.read_text())
    config["preprocessing"]["transforms"].insert(0, {"_target_": target, "keys": "image"})
    file.write_text(json.dumps(config))
    if taken:
        assert open_model(bundle).network is not None
    else:
        with pytest.raises(BundleInvalid, match="may call"):
            open_model(bundle)
