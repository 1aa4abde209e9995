"""Probabilities that mean what they say: a network's logits, scaled as a set of known cases asks for.

Networks are surer than they are right. One temperature for all findings where one of them holds (Guo et al. 2017), a slope and
an offset for each where several may (Platt 1999, with his targets, so that a few cases do not make certainty). What comes
before is logits and what comes after is the bundle's own postprocessing, so every classifier can be calibrated.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar

from gateway.bundle.manifest import Manifest
from gateway.domain.errors import BundleInvalid

Table = NDArray[np.float64]  # (cases, findings)

LEAST_CASES = 20
_BINS = 15  # as Guo et al.
_FOLDS = 5
_TEMPERATURES = (0.05, 20.0)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How logits are scaled: logit * slope + offset, for each finding; and what it was made from."""

    weights: str  # SHA-256 of the weights that gave the logits
    findings: tuple[str, ...]  # their code values, in order
    slopes: tuple[float, ...]  # all 1 / temperature where findings exclude each other
    offsets: tuple[float, ...]
    cases: int
    error_before: float  # expected calibration error, 0..1
    error_after: float  # the same, of cases that the fit has not seen (five-fold)

    def apply(self, logits: Table) -> Table:
        """Scaled logits, (..., findings)."""
        return np.asarray(logits * np.array(self.slopes) + np.array(self.offsets))

    @property
    def words(self) -> str:
        """In a few words, for provenance."""
        if len(set(self.slopes)) == 1 and not any(self.offsets):
            return f"temperature {1 / self.slopes[0]:.4g}, {self.cases} cases"
        pairs = ", ".join(
            f"{slope:.4g} x + {offset:.4g}" for slope, offset in zip(self.slopes, self.offsets, strict=True)
        )
        return f"Platt {pairs}, {self.cases} cases"

    def to_json(self) -> str:
        """As it lies in the bundle."""
        return json.dumps(asdict(self), indent=2) + "\n"


def read_calibration(file: Path, manifest: Manifest) -> Calibration:
    """Raises BundleInvalid where there is none, or it was made for other weights or findings."""
    try:
        data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        lists: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
        }
        found = Calibration(**lists)
        asked = tuple(spec.name.value for spec in manifest.output.findings)
        numbers = np.array([*found.slopes, *found.offsets], np.float64)
        sound = len(numbers) == 2 * len(asked) and bool(np.isfinite(numbers).all()) and min(found.slopes) > 0
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise BundleInvalid(
            f"the calibration {file.name} of {manifest.name} cannot be read: run `hilum models calibrate`",
            code="no_calibration",
        ) from error
    if found.weights != manifest.weight_files[0].sha256 or found.findings != asked or not sound:
        raise BundleInvalid(
            f"the calibration {file.name} of {manifest.name} was made for other weights or findings: "
            "run `hilum models calibrate` again",
            code="wrong_calibration",
        )
    return found


def calibrate(logits: Table, truth: NDArray[np.bool_], manifest: Manifest) -> Calibration:
    """Fits; ``truth`` says which findings hold, (cases, findings). Raises BundleInvalid for a set that shows too little."""
    _check(logits, truth, manifest)
    exclusive = manifest.output.exclusive
    slopes, offsets = _fit(logits, truth, exclusive)
    unseen = np.empty_like(logits)
    folds = np.arange(len(logits)) % _FOLDS
    for fold in range(_FOLDS):
        slope, offset = _fit(logits[folds != fold], truth[folds != fold], exclusive)
        unseen[folds == fold] = logits[folds == fold] * slope + offset
    return Calibration(
        weights=manifest.weight_files[0].sha256,
        findings=tuple(spec.name.value for spec in manifest.output.findings),
        slopes=tuple(slopes.round(6).tolist()),
        offsets=tuple(offsets.round(6).tolist()),
        cases=len(logits),
        error_before=round(calibration_error(probabilities(logits, exclusive), truth, exclusive), 4),
        error_after=round(calibration_error(probabilities(unseen, exclusive), truth, exclusive), 4),
    )


def probabilities(logits: Table, exclusive: bool) -> Table:
    """Softmax where one finding holds, else sigmoids."""
    if exclusive:
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
    return np.asarray(0.5 * (1 + np.tanh(logits / 2)))


def calibration_error(chances: Table, truth: NDArray[np.bool_], exclusive: bool) -> float:
    """Expected calibration error in 15 bins (Guo et al. 2017): of the answer given, or the mean over findings."""
    if not exclusive:
        return float(np.mean([_gap(chances[:, index], truth[:, index]) for index in range(chances.shape[1])]))
    first = chances.argmax(axis=1)
    return _gap(chances.max(axis=1), truth[np.arange(len(truth)), first])


def _gap(chance: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    bins = np.minimum((chance * _BINS).astype(int), _BINS - 1)
    each = [abs(float(chance[bins == one].sum()) - int(right[bins == one].sum())) for one in np.unique(bins)]
    return float(sum(each) / len(chance))


def _fit(logits: Table, truth: NDArray[np.bool_], exclusive: bool) -> tuple[Table, Table]:
    count = logits.shape[1]
    if not exclusive:
        pairs = np.array([_platt(logits[:, index], truth[:, index]) for index in range(count)])
        return pairs[:, 0], pairs[:, 1]
    labels = truth.argmax(axis=1)

    def loss(log_temperature: float) -> float:
        chances = probabilities(logits / np.exp(log_temperature), exclusive=True)
        return -float(np.log(np.maximum(chances[np.arange(len(labels)), labels], 1e-12)).mean())

    found = minimize_scalar(loss, bounds=tuple(np.log(_TEMPERATURES)), method="bounded", options={"xatol": 1e-6})
    return np.full(count, 1 / np.exp(found.x)), np.zeros(count)


def _platt(logits: NDArray[np.float64], truth: NDArray[np.bool_]) -> Sequence[float]:
    yes, no = int(truth.sum()), int((~truth).sum())
    targets = np.where(truth, (yes + 1) / (yes + 2), 1 / (no + 2))

    def loss(pair: NDArray[np.float64]) -> float:
        chances = np.clip(probabilities(logits * pair[0] + pair[1], exclusive=False), 1e-12, 1 - 1e-12)
        return -float((targets * np.log(chances) + (1 - targets) * np.log(1 - chances)).mean())

    # A slope below zero would say the opposite of the network.
    found = minimize(loss, np.array([1.0, 0.0]), method="L-BFGS-B", bounds=[(1 / _TEMPERATURES[1], None), (None, None)])
    return [float(value) for value in found.x]


def _check(logits: Table, truth: NDArray[np.bool_], manifest: Manifest) -> None:
    findings = manifest.output.findings
    if not findings or logits.shape != truth.shape or logits.shape[1] != len(findings):
        raise BundleInvalid(f"{manifest.name}: calibration needs a logit and a label of each of its findings")
    if len(logits) < LEAST_CASES or not np.isfinite(logits).all():
        raise BundleInvalid(f"{manifest.name}: calibration needs {LEAST_CASES} cases or more, with finite logits")
    if manifest.output.exclusive and (truth.sum(axis=1) != 1).any():
        raise BundleInvalid(f"{manifest.name}: of findings that exclude each other exactly one holds in each case")
    unseen = [spec.name.value for spec, held in zip(findings, truth.T, strict=True) if held.all() or not held.any()]
    if unseen:
        raise BundleInvalid(f"{manifest.name}: calibration needs cases with and without {', '.join(unseen)}")
