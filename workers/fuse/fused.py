"""A fusion's answer to one job: its parts asked one after another, and their answers combined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gateway.bundle.files import read_manifest
from gateway.bundle.fused import check_parts, compile_rules, find_parts
from gateway.bundle.manifest import Manifest
from gateway.domain.errors import InputRefused, ModelOutputInvalid
from gateway.domain.messages import JobOrder, PartResult
from workers.fuse.combine import (
    by_rules,
    labels_by_vote,
    least_agreement,
    mean_numbers,
    most_likely,
)
from workers.fuse.model import FusionModel
from workers.fuse.part import PartAnswer, Stages, answer_part
from workers.fuse.telling import compared, left_out, made_of, provenance, said_by, without
from workers.infer.answer import Answer
from workers.infer.predict import Probabilities
from workers.infer.vote import RunningMean
from workers.load.envelope import within
from workers.load.series import load
from workers.load.volume import Companion, Volume


@dataclass(frozen=True, kw_only=True)
class Fused:
    """What is reported, and of what it was made."""

    volume: Volume  # what results lie on, with what a reader must know
    answer: Answer
    parts: tuple[PartResult, ...]
    quality: dict[str, float]
    provenance: dict[str, str]


def fuse(order: JobOrder, model: FusionModel, stages: Stages) -> Fused:
    """Raises what a part raises, except that a part which may be missing is left out where it refuses its images, or has none.

    Raises BundleInvalid for parts that are not those that are pinned, InputRefused where a part that is needed has no series
    (`input_missing`) or no part has answered (`no_parts`), and ModelOutputInvalid for answers that cannot be combined
    (`no_probabilities`, `rule`) or do not agree (`parts_disagree`).
    """
    manifest, fusion = model.manifest, model.fusion
    bundles = find_parts(manifest, [Path(part.bundle) for part in order.parts])
    known = {name: read_manifest(path) for name, path in bundles.items()}
    check_parts(manifest, known)
    with stages("load"):
        own = replace(order, inputs=tuple(file for file in order.inputs if file.input == manifest.input.name))
        volume, quality = within(load(own, manifest), model.reference, manifest.input.envelope)
    answers, chances, gone = _asked(order, model, bundles, volume, stages)
    with stages("fuse"):
        answer = _combined(answers, chances, manifest, known, volume)
        agreement = _agreement(answers, manifest)
        weights = _weights(answers) if fusion.combine in ("mean", "vote") else [0.0] * len(answers)
        parts = {
            one.spec.name: compared(one, answer, weight, manifest) for one, weight in zip(answers, weights, strict=True)
        }
        parts |= {name: left_out(name, why, model, known[name]) for name, why in gone.items()}
    told = tuple(parts[part.name] for part in fusion.parts)
    sentences = (made_of(told, agreement, manifest), *without(told, model, order.flags), *_of_parts(answers))
    companions = _distinct(answers)
    return Fused(
        volume=replace(volume, companions=companions, flags=(*volume.flags, *sentences)),
        answer=answer,
        parts=told,
        quality=quality if agreement is None else {**quality, "parts_agreement": round(agreement, 6)},
        provenance=provenance(order, model, told, companions),
    )


def _asked(
    order: JobOrder, model: FusionModel, bundles: Mapping[str, Path], volume: Volume, stages: Stages
) -> tuple[list[PartAnswer], Probabilities | None, dict[str, str]]:
    """What the parts say, the mean of their probabilities where one is wanted, and why others say nothing."""
    answers: list[PartAnswer] = []
    gone: dict[str, str] = {}
    mean: RunningMean[Probabilities] = RunningMean()
    soft = model.manifest.output.kind == "segmentation" and model.fusion.combine == "mean"
    for spec in model.fusion.parts:
        try:
            found = answer_part(spec, bundles[spec.name], order, volume, model.manifest, stages)
        except InputRefused as refusal:
            if spec.missing == "refuse":
                raise InputRefused(f"{spec.name}: {refusal.message}", code=refusal.code) from refusal
            gone[spec.name] = refusal.message
            continue
        if soft:
            if found.chances is None:
                raise ModelOutputInvalid(
                    f"the part {spec.name} gives no probabilities to make a mean of: combine by vote",
                    code="no_probabilities",
                )
            mean.add(found.chances, spec.weight or 1.0)
        answers.append(replace(found, chances=None))  # one part's at a time
    if not answers:
        reasons = "; ".join(f"{name}: {why}" for name, why in gone.items())
        raise InputRefused(f"no part has answered: {reasons}", code="no_parts")
    return answers, mean.value if soft else None, gone


def _combined(
    answers: Sequence[PartAnswer],
    chances: Probabilities | None,
    manifest: Manifest,
    known: Mapping[str, Manifest],
    volume: Volume,
) -> Answer:
    assert manifest.fusion is not None  # noqa: S101
    combine, labels = manifest.fusion.combine, [one.labels for one in answers if one.labels is not None]
    ruled: tuple[bool | float | str, ...] = ()
    if combine == "rules":
        said = {one.spec.name: said_by(one) for one in answers}
        ruled = by_rules(compile_rules(manifest, known), said, manifest)
    if manifest.output.kind != "segmentation":
        nothing = np.zeros(volume.voxels.shape, np.uint8)
        if ruled:
            return Answer(labels=nothing, numbers=tuple(float(value) for value in ruled))
        numbers = mean_numbers([one.numbers for one in answers], _weights(answers))
        return Answer(labels=nothing, numbers=numbers)
    if ruled:
        return Answer(
            labels=next(one.labels for one in answers if one.spec.name == ruled[0] and one.labels is not None)
        )
    if chances is not None:
        return Answer(labels=most_likely(chances))
    return Answer(labels=labels_by_vote(labels, _weights(answers), combine))


def _weights(answers: Sequence[PartAnswer]) -> list[float]:
    """Of those that have answered; they sum to 1."""
    given = [one.spec.weight or 1.0 for one in answers]
    return [weight / sum(given) for weight in given]


def _agreement(answers: Sequence[PartAnswer], manifest: Manifest) -> float | None:
    """Of the two parts that agree least; raises ModelOutputInvalid where that is too little."""
    assert manifest.fusion is not None  # noqa: S101
    if manifest.output.kind == "regression":
        return None
    labels = [one.labels for one in answers if one.labels is not None]
    numbers = [one.numbers for one in answers if one.numbers]
    found = least_agreement(labels, numbers, len(manifest.output.segments))
    if found is not None and found < manifest.fusion.agreement and manifest.fusion.below == "refuse":
        raise ModelOutputInvalid(
            f"the parts agree by {found:.3f} with one another, at least {manifest.fusion.agreement:g} is wanted",
            code="parts_disagree",
        )
    return found


def _of_parts(answers: Sequence[PartAnswer]) -> tuple[str, ...]:
    return tuple(f"{one.spec.name}: {flag}" for one in answers for flag in one.result.flags)


def _distinct(answers: Sequence[PartAnswer]) -> tuple[Companion, ...]:
    """Each further series once."""
    found = {str(each.headers[0].SeriesInstanceUID): each for one in answers for each in one.companions}
    return tuple(found.values())
