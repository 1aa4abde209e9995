"""How sure a model is: the same images several times, with dropout on or slightly changed, and what differs.

All is counted on the labels on the volume's own grid, so that it holds for any bundle: the share of samples that give
a voxel a label is the label's probability there. Deterministic: each sample has a seed of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from monai.inferers.inferer import Inferer
from numpy.typing import NDArray
from torch import Tensor

from gateway.bundle.network import Uncertainty
from gateway.bundle.output import UNITS
from gateway.domain.messages import Code, MeasurementResult
from workers.infer.dropout import dropout
from workers.infer.model import Model
from workers.infer.output import QuantityMap
from workers.infer.predict import infer
from workers.load.masks import Labels, Masks
from workers.load.volume import Volume

ENTROPY = Code(value="entropy", scheme="99HILUM", meaning="Entropy of sampled labels")
BIT = Code(value="bit", scheme="UCUM", meaning="bit")
_INTERVAL = (5, 95)  # percentiles


@dataclass(frozen=True, kw_only=True)
class Spread:
    """What the samples say of one segment."""

    segment: int
    voxels: tuple[int, ...]  # one count for each sample
    agreement: float  # mean Dice of a sample with the result
    confidence: str  # `high`, `moderate`, `low`


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """What the samples say of the whole."""

    spreads: tuple[Spread, ...]
    maps: tuple[QuantityMap, ...]


def assess(model: Model, volume: Volume, labels: Labels, settings: Uncertainty) -> Assessment:
    """Samples the model; ``labels`` is its plain result, which stays the result."""
    segments = range(1, len(model.manifest.output.segments) + 1)
    plain = Masks(labels)
    votes = np.zeros((len(segments) + 1, *labels.shape), np.uint16)
    counts: dict[int, list[int]] = {segment: [] for segment in segments}
    overlaps: dict[int, list[float]] = {segment: [] for segment in segments}
    for sampled in _samples(model, volume, settings):
        for label in range(len(votes)):
            votes[label] += sampled == label
        for segment in segments:
            mask, result = sampled == segment, plain.of(segment)
            counts[segment].append(int(mask.sum()))
            total = counts[segment][-1] + plain.total(segment)
            overlaps[segment].append(2.0 * float((mask & result).sum()) / total if total else 1.0)
    spreads = tuple(_spread(segment, counts[segment], overlaps[segment], settings) for segment in segments)
    return Assessment(spreads=spreads, maps=(_entropy(votes, model.manifest.samples),) if settings.map else ())


def with_intervals(
    measurements: tuple[MeasurementResult, ...], assessment: Assessment, voxels: dict[int, int]
) -> tuple[MeasurementResult, ...]:
    """Volumes with their interval and confidence; a volume goes with its segment's count of ``voxels``."""
    spreads = {spread.segment: spread for spread in assessment.spreads}
    return tuple(
        _interval(item, spreads[item.segment], voxels[item.segment])
        if item.segment in spreads and item.unit.value in UNITS["volume"]
        else item  # the samples say nothing of a diameter or an intensity
        for item in measurements
    )


def sentences(
    measurements: tuple[MeasurementResult, ...], assessment: Assessment, voxels: dict[int, int], model: Model
) -> tuple[str, ...]:
    """One for each segment, for people."""
    settings = model.manifest.uncertainty
    assert settings is not None  # noqa: S101
    way = {
        "mc_dropout": "with dropout on",
        "tta": "on slightly changed images",
        "ensemble": "of the ensemble's members",
    }[settings.method]
    found = []
    for spread in assessment.spreads:
        label = model.manifest.output.segments[spread.segment - 1].label
        bias = float(np.mean(spread.voxels)) / max(voxels[spread.segment], 1) - 1
        said = [
            f"{label}: confidence {spread.confidence}",
            f"{model.manifest.samples} runs {way} agree with the result by Dice {spread.agreement:.3f}",
            *(_range(item, bias) for item in measurements if item.segment == spread.segment and item.low is not None),
        ]
        found.append(f"{'; '.join(said)}.")
    return tuple(found)


def _range(item: MeasurementResult, bias: float) -> str:
    """Whether the samples lie around the result is said, not assumed: dropout often shrinks what a network finds."""
    interval = f"{item.low:.4g} to {item.high:.4g} {item.unit.value}"
    return f"{item.name.meaning} {interval} in nine of ten, their mean {bias:+.1%} from the result"


def _samples(model: Model, volume: Volume, settings: Uncertainty) -> Iterator[NDArray[np.uint8]]:
    if settings.method == "ensemble":
        yield from (infer(member, volume) for member in model.alone())
        return
    state = torch.get_rng_state()
    try:
        for number in range(settings.samples):
            torch.manual_seed(settings.seed + number)
            if settings.method == "mc_dropout":
                with dropout(model.network):
                    yield infer(model, volume)
            else:
                varied = replace(model, inferer=_Varied(model.inferer, settings.seed + number))
                yield infer(varied, volume)
    finally:
        torch.set_rng_state(state)


class _Varied(Inferer):
    """An inferer that shows the network another view, and turns its answer back."""

    def __init__(self, inferer: Inferer, seed: int) -> None:
        super().__init__()
        self._inferer, self._random = inferer, random.Random(seed)  # noqa: S311

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *_: Any, **__: Any) -> Tensor:
        """As any inferer."""
        axes = [axis for axis in range(2, inputs.dim()) if self._random.random() < 0.5]
        gain = self._random.uniform(0.95, 1.05)
        spread = inputs.std() * 0.02
        varied = torch.flip(inputs * gain + torch.randn_like(inputs) * spread, axes)
        output: Tensor = self._inferer(inputs=varied, network=network)
        return torch.flip(output, axes)


def _spread(segment: int, counts: list[int], overlaps: list[float], settings: Uncertainty) -> Spread:
    agreement = float(np.mean(overlaps))
    confidence = "high" if agreement >= settings.high else "moderate" if agreement >= settings.moderate else "low"
    return Spread(segment=segment, voxels=tuple(counts), agreement=agreement, confidence=confidence)


def _interval(item: MeasurementResult, spread: Spread, voxels: int) -> MeasurementResult:
    if voxels == 0:  # nothing to scale by
        return replace(item, confidence=spread.confidence)
    low, high = np.percentile(spread.voxels, _INTERVAL)
    each = item.value / voxels
    return replace(item, low=float(low * each), high=float(high * each), confidence=spread.confidence)


def _entropy(votes: NDArray[np.uint16], samples: int) -> QuantityMap:
    """Of the labels' shares, in bits (Shannon 1948); plane by plane, since all at once would take several volumes."""
    values = np.zeros(votes.shape[1:], np.float32)
    for index in range(votes.shape[1]):
        share = votes[:, index].astype(np.float32) / samples
        values[index] = -(share * np.log2(np.where(share > 0, share, 1))).sum(axis=0)
    return QuantityMap(name="uncertainty", label="Uncertainty", values=np.abs(values), quantity=ENTROPY, unit=BIT)
