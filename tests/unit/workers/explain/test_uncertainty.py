"""Sampling a model: what dropout changes is counted, what it does not change is sure, and the same seed says the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.domain.errors import BundleInvalid
from gateway.domain.messages import Code, MeasurementResult
from tests.support.bundles import write_bundle
from workers.explain.uncertainty import Assessment, assess, sentences, with_intervals
from workers.infer.model import Model, open_model
from workers.infer.predict import infer
from workers.load.volume import Volume

VOXELS = np.zeros((6, 20, 20), np.float32)
VOXELS[1:4, 4:14, 4:14] = 900
VOXELS[5, 0, 0] = 1000
VOLUME = Volume(voxels=VOXELS, affine=np.diag([3.0, 1.0, 1.0, 1.0]), headers=(None,) * 6)
ML = Code(value="mL", scheme="UCUM", meaning="milliliter")
FOUND = 301


def sampled(tmp_path: Path, behaviour: str = "dropout", **settings: Any) -> tuple[Model, Assessment]:
    """An assessment with six samples, unless told otherwise."""
    directory = tmp_path / f"bundle-{behaviour}-{len(list(tmp_path.iterdir()))}"
    bundle = write_bundle(directory, behaviour, uncertainty={"method": "mc_dropout", "samples": 6, **settings})
    model = open_model(bundle)
    labels = infer(model, VOLUME)
    assert model.manifest.uncertainty is not None
    return model, assess(model, VOLUME, labels, model.manifest.uncertainty)


def test_dropout_spreads_and_the_map_says_where(tmp_path: Path) -> None:
    """Half of the bright voxels are left out in each sample: Dice 2/3, entropy near one bit there and none elsewhere."""
    _, found = sampled(tmp_path)
    (spread,) = found.spreads
    assert spread.agreement == pytest.approx(2 / 3, abs=0.06)
    assert (spread.confidence, len(set(spread.voxels)) > 1) == ("low", True)
    (entropy,) = found.maps
    inside = VOXELS > 450
    assert entropy.values[~inside].max() == 0
    assert 0.5 < entropy.values[inside].mean() <= 1
    assert (entropy.quantity.value, entropy.unit.value) == ("entropy", "bit")


def test_a_seed_decides(tmp_path: Path) -> None:
    """The same one gives the same numbers and the same map; another one others."""
    first, again, other = (sampled(tmp_path, seed=seed)[1] for seed in (1, 1, 2))
    assert first.spreads == again.spreads != other.spreads
    assert np.array_equal(first.maps[0].values, again.maps[0].values)


def test_the_network_is_left_as_it_was(tmp_path: Path) -> None:
    """Dropout is off again, and the next plain result is the plain result."""
    model, _ = sampled(tmp_path)
    assert not any(module.training for module in model.network.modules())
    assert int(infer(model, VOLUME).sum()) == FOUND


def test_slightly_changed_images_change_nothing_that_is_clear(tmp_path: Path) -> None:
    """Turned over, brighter, with some noise: a threshold at half finds the same, so the confidence is high."""
    _, found = sampled(tmp_path, "threshold", method="tta", map=False)
    (spread,) = found.spreads
    assert (spread.voxels, spread.agreement, spread.confidence, found.maps) == ((FOUND,) * 6, 1.0, "high", ())


def test_measurements_get_their_interval_and_a_sentence(tmp_path: Path) -> None:
    """In the measurement's own unit; the mean's distance from the result is told as it is."""
    model, found = sampled(tmp_path)
    volume = MeasurementResult(
        name=Code(value="v", scheme="SCT", meaning="Volume"), value=FOUND * 0.003, unit=ML, segment=1
    )
    other = MeasurementResult(name=volume.name, value=1.0, unit=ML)
    measured, untouched = with_intervals((volume, other), found, {1: FOUND})
    assert measured.low is not None
    assert measured.high is not None
    assert 0.3 < measured.low < measured.high < 0.65
    assert (measured.value, measured.confidence, untouched) == (volume.value, "low", other)
    (said,) = sentences((measured,), found, {1: FOUND}, model)
    assert said.startswith("Bright: confidence low; 6 runs with dropout on agree with the result by Dice 0.6")
    assert "their mean -5" in said or "their mean -4" in said


def test_a_network_without_dropout_cannot_be_asked_that_way(tmp_path: Path) -> None:
    """Said when the bundle is opened, not by a confidence of 1."""
    bundle = write_bundle(tmp_path / "b", uncertainty={"method": "mc_dropout"})
    with pytest.raises(BundleInvalid, match="has no dropout"):
        open_model(bundle)
