"""Calibration: what was too sure becomes as sure as it is right, on cases it has not seen, and belongs to its weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from gateway.bundle.files import bundle_digest, read_manifest
from gateway.bundle.manifest import Manifest
from gateway.domain.errors import BundleInvalid
from tests.support.classifier import write_cases, write_classifier
from workers.calibrate import main
from workers.infer.calibration import calibrate, calibration_error, probabilities, read_calibration
from workers.infer.model import open_model
from workers.infer.predict import infer_raw_and_calibrated
from workers.load.volume import Volume

RANDOM = np.random.default_rng(5)


def cases(sure: float, count: int = 900) -> tuple[np.ndarray, np.ndarray]:
    """Logits of three findings that exclude each other, ``sure`` times too large, and what is true."""
    honest = RANDOM.normal(0, 1.5, (count, 3))
    chances = probabilities(honest, exclusive=True)
    labels = np.array([RANDOM.choice(3, p=row) for row in chances])
    return honest * sure, np.eye(3, dtype=bool)[labels]


def manifest(tmp_path: Path, *, exclusive: bool) -> Manifest:
    return read_manifest(write_classifier(tmp_path / f"bundle-{exclusive}", exclusive=exclusive))


def test_a_temperature_is_found(tmp_path: Path) -> None:
    logits, truth = cases(sure=3)
    found = calibrate(logits, truth, manifest(tmp_path, exclusive=True))
    assert 1 / found.slopes[0] == pytest.approx(3, rel=0.15)
    assert (len(set(found.slopes)), set(found.offsets)) == (1, {0.0})
    assert found.error_before > 0.12 > 0.06 > found.error_after
    fresh, known = cases(sure=3)
    before, after = (calibration_error(probabilities(one, True), known, True) for one in (fresh, found.apply(fresh)))
    assert after < before / 2


def test_each_finding_that_may_hold_has_its_own_slope_and_offset(tmp_path: Path) -> None:
    logits = RANDOM.normal(0, 2, (900, 3))
    truth = RANDOM.random((900, 3)) < probabilities(logits * np.array([0.5, 1.0, 0.25]) + np.array([0, 1, -0.5]), False)
    found = calibrate(logits, truth, manifest(tmp_path, exclusive=False))
    assert found.slopes == pytest.approx((0.5, 1.0, 0.25), abs=0.2)
    assert found.offsets == pytest.approx((0, 1, -0.5), abs=0.3)
    assert found.error_after < found.error_before


def test_the_error_is_that_of_guo() -> None:
    """Always 0.8 sure and right in six of ten: 0.2."""
    chances, truth = np.tile([0.8, 0.2], (10, 1)), np.array([[True, False]] * 6 + [[False, True]] * 4)
    assert calibration_error(chances, truth, True) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda logits, truth: (logits[:10], truth[:10]), "20 cases"),
        (lambda logits, truth: (logits, truth | True), "exactly one"),
        (lambda logits, truth: (logits, np.eye(3, dtype=bool)[np.zeros(len(truth), int)]), "with and without"),
        (lambda logits, truth: (logits[:, :2], truth[:, :2]), "each of its findings"),
        (lambda logits, truth: (logits * np.nan, truth), "finite"),
    ],
)
def test_a_set_that_shows_too_little_is_refused(tmp_path: Path, change: object, said: str) -> None:
    assert callable(change)
    with pytest.raises(BundleInvalid, match=said):
        calibrate(*change(*cases(sure=1, count=60)), manifest(tmp_path, exclusive=True))


def test_a_calibration_is_of_its_weights(tmp_path: Path) -> None:
    asked = manifest(tmp_path, exclusive=True)
    file = tmp_path / "calibration.json"
    with pytest.raises(BundleInvalid, match="hilum models calibrate"):
        read_calibration(file, asked)
    found = calibrate(*cases(sure=2), asked)
    file.write_text(found.to_json())
    assert read_calibration(file, asked) == found
    file.write_text(dataclasses.replace(found, weights="0" * 64).to_json())
    with pytest.raises(BundleInvalid) as refusal:
        read_calibration(file, asked)
    assert refusal.value.code == "wrong_calibration"


def test_results_say_the_calibrated_probability_and_provenance_the_raw_one(tmp_path: Path) -> None:
    bundle = write_classifier(tmp_path / "bundle", exclusive=True, calibrated=2.0)
    voxels = np.full((4, 8, 8), 100, np.float32)
    voxels[0] = 900
    volume = Volume(voxels=voxels, affine=np.eye(4), headers=(None,) * 4)
    found = infer_raw_and_calibrated(open_model(bundle), volume)
    assert found.raw == pytest.approx(probabilities(np.array(found.logits), True))
    assert found.values == pytest.approx(probabilities(np.array(found.logits) / 2, True))
    assert max(found.values) < max(found.raw)


def test_the_command_writes_what_is_part_of_the_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cases in any order; of other cases than the labels' nothing is made."""
    bundle = write_classifier(tmp_path / "bundle", exclusive=True, calibrated=2.0)
    before = bundle_digest(bundle)
    logits, truth = cases(sure=3, count=300)
    names = [f"c{number}" for number in range(len(logits))]
    write_cases(tmp_path / "set", "labels.csv", dict(zip(names, truth.astype(int).tolist(), strict=True)))
    turned = dict(zip(reversed(names), logits[::-1].tolist(), strict=True))
    write_cases(tmp_path / "set", "logits.csv", turned)
    monkeypatch.setattr("sys.argv", ["calibrate", str(bundle), str(tmp_path / "set")])
    assert main() == 0
    found = read_calibration(bundle / "calibration.json", read_manifest(bundle))
    assert (found.cases, bundle_digest(bundle) != before) == (300, True)
    assert 1 / found.slopes[0] == pytest.approx(3, rel=0.25)
    turned.pop("c0")
    write_cases(tmp_path / "set", "logits.csv", turned)
    assert main() != 0
