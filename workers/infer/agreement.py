"""Whether a network that was made faster still says what the plain one says."""

from __future__ import annotations

import time

from gateway.domain.errors import ModelOutputInvalid
from workers.infer.answer import Answer, ask
from workers.infer.model import Model
from workers.load.masks import Labels, Masks
from workers.load.volume import Volume


def compare(model: Model, volume: Volume, answer: Answer) -> dict[str, float]:
    """`agreement` of a model's answer with that of the plain one, and `speed`: how many times as fast it answers again.

    Agreement is the least Dice of a segment, or 1 minus the largest difference of a number. Raises ModelOutputInvalid
    (`disagrees`) where it is less than the manifest wants.
    """
    wanted = model.manifest.acceleration
    if wanted is None or model.plain is None:
        return {}
    slow, plain = _timed(model.plain, volume)
    found = _agreement(answer, plain, len(model.manifest.output.segments))
    if found < wanted.agreement:
        raise ModelOutputInvalid(
            f"made faster, the model agrees with itself by {found:.4f}; at least {wanted.agreement:g} is wanted",
            code="disagrees",
        )
    fast, _ = _timed(model, volume)  # once more: the first time it was traced or exported
    return {"agreement": round(found, 6), "speed": round(slow / fast, 3)}


def _timed(model: Model, volume: Volume) -> tuple[float, Answer]:
    begun = time.perf_counter()
    answer = ask(model, volume)
    return time.perf_counter() - begun, answer


def _agreement(answer: Answer, plain: Answer, segments: int) -> float:
    if segments:
        return _least_dice(answer.labels, plain.labels, segments)
    return 1.0 - max((abs(one - two) for one, two in zip(answer.numbers, plain.numbers, strict=True)), default=0.0)


def _least_dice(labels: Labels, plain: Labels, segments: int) -> float:
    one, two = Masks(labels), Masks(plain)
    return min((one.dice(two, number) for number in range(1, segments + 1)), default=1.0)
