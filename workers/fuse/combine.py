"""Several answers to one question into one, and how far they lie apart. Pure.

Arrays and numbers only: who gave them, and on which images, is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from gateway.bundle.fused import check_answer, why
from gateway.bundle.manifest import Manifest
from gateway.cel.program import Program, Unanswerable
from gateway.domain.errors import ModelOutputInvalid
from workers.infer.predict import Probabilities
from workers.infer.vote import RunningMean, majority, staple
from workers.load.masks import Labels, Masks

Said = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Part -> `findings` and `values` -> name -> what it says."""


def labels_by_vote(labels: Sequence[Labels], weights: Sequence[float], combine: str) -> Labels:
    """By majority, each voice counted by its weight, or by STAPLE."""
    return staple(labels) if combine == "staple" else majority(labels, weights)


def most_likely(chances: Probabilities) -> Labels:
    """For each voxel the likeliest of background and segments; of equals the lower number.

    ``chances`` is (segments, slices, rows, columns); what is left to 1 is background's.
    """
    background = 1.0 - chances.sum(axis=0)
    best = np.zeros(chances.shape[1:], np.uint8)
    height = background
    for number, each in enumerate(chances, start=1):
        won = each > height
        best[won] = number
        height = np.where(won, each, height)
    return best


def mean_numbers(numbers: Sequence[Sequence[float]], weights: Sequence[float]) -> tuple[float, ...]:
    """One mean for each; raises ModelOutputInvalid for what is not finite."""
    found: RunningMean[Any] = RunningMean()
    for each, weight in zip(numbers, weights, strict=True):
        found.add(np.asarray(each, np.float64), weight)
    if not np.isfinite(found.value).all():
        raise ModelOutputInvalid("a part gives a number that is not finite", code="output_not_finite")
    return tuple(found.value.tolist())


def by_rules(programs: Iterable[Program], said: Said, manifest: Manifest) -> tuple[bool | float | str, ...]:
    """What each rule comes to; raises ModelOutputInvalid (`rule`) for one that has no answer for these parts."""
    found = []
    for number, program in enumerate(programs, start=1):
        try:
            value = program.value({"parts": said})
            check_answer(value, manifest, said)
        except Unanswerable as problem:
            raise ModelOutputInvalid(f"rule {number} has no answer: {why(problem)}", code="rule") from problem
        found.append(value)
    return tuple(found)


def dice_with(result: Labels, labels: Labels, names: Sequence[str]) -> dict[str, float]:
    """Of each segment of the result, by its label; 1 where neither has it."""
    one, other = Masks(result), Masks(labels)
    return {name: round(one.dice(other, number), 6) for number, name in enumerate(names, start=1)}


def least_agreement(labels: Sequence[Labels], numbers: Sequence[Sequence[float]], segments: int) -> float | None:
    """The least Dice of a segment between two parts, or 1 minus the largest difference of a number; None for fewer than two."""
    if labels:
        dice = [
            Masks(one).dice(Masks(other), number)
            for one, other in combinations(labels, 2)
            for number in range(1, segments + 1)
        ]
        return min(dice, default=None)
    apart = [
        abs(first - second) for one, other in combinations(numbers, 2) for first, second in zip(one, other, strict=True)
    ]
    return 1.0 - max(apart) if apart else None
