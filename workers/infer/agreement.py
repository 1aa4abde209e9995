"""Whether a network that was made faster still says what the plain one says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gateway.domain.errors import ModelOutputInvalid
from workers.infer.model import Model
from workers.infer.predict import infer, infer_numbers
from workers.load.masks import Labels, Masks
from workers.load.volume import Volume


def agreement(model: Model, volume: Volume, labels: Labels, numbers: Sequence[float]) -> float:
    """Least Dice of a segment with that of the plain network, or 1 minus the largest difference of a number.

    Raises ModelOutputInvalid (`disagrees`) where it is less than the manifest wants.
    """
    wanted = model.manifest.acceleration
    if wanted is None or model.plain is None:
        return 1.0
    plain = replace(model, network=model.plain)
    if model.manifest.output.kind == "segmentation":
        found = _least_dice(labels, infer(plain, volume), len(model.manifest.output.segments))
    else:
        other = infer_numbers(plain, volume)
        found = 1.0 - max((abs(one - two) for one, two in zip(numbers, other, strict=True)), default=0.0)
    if found < wanted.agreement:
        raise ModelOutputInvalid(
            f"made faster, the model agrees with itself by {found:.4f}; at least {wanted.agreement:g} is wanted",
            code="disagrees",
        )
    return round(found, 6)


def _least_dice(labels: Labels, plain: Labels, segments: int) -> float:
    """1 for a segment that neither has."""
    one, two = Masks(labels), Masks(plain)
    least = 1.0
    for number in range(1, segments + 1):
        both = int(np.count_nonzero(one.of(number) & two.of(number)))
        total = one.total(number) + two.total(number)
        least = min(least, 2 * both / total if total else 1.0)
    return least
