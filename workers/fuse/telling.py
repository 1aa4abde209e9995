"""What is told of the parts of a fusion: in one sentence to people, in full to programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gateway.bundle.fusion import Fusion
from gateway.bundle.manifest import Manifest
from gateway.domain.ids import digest
from gateway.domain.messages import JobOrder, MeasurementResult, PartResult
from workers.fuse.combine import dice_with
from workers.fuse.model import FusionModel
from workers.fuse.part import PartAnswer
from workers.infer.answer import Answer
from workers.infer.model import identity_of
from workers.infer.provenance import libraries
from workers.load.volume import Companion

_SHOWN = 3  # numbers of a part in the sentence


def said_by(part: PartAnswer) -> dict[str, dict[str, float]]:
    """What rules can ask of a part: probabilities of findings from 0 to 1, the best score of a class of boxes, and values."""
    labels = {one.number: one.label for one in part.manifest.output.segments}
    findings = {one.name.meaning: one.value / 100 for one in part.result.measurements if one.probability}
    values = {_name(one, labels): one.value for one in part.result.measurements if not one.probability}
    return {"findings": {**part.scores, **findings}, "values": values}


def compared(part: PartAnswer, answer: Answer, weight: float, manifest: Manifest) -> PartResult:
    """A part's own answer with how far it is from the result."""
    output = manifest.output
    names = [*(one.name.meaning for one in output.findings), *(one.name.meaning for one in output.values)]
    dice = {} if part.labels is None else dice_with(answer.labels, part.labels, [one.label for one in output.segments])
    apart = {
        name: round(own - result, 9)
        for name, own, result in zip(names, part.numbers, answer.numbers, strict=False)  # none by rules
    }
    return replace(part.result, weight=round(weight, 6), dice=dice, difference=apart)


def left_out(name: str, why: str, model: FusionModel, manifest: Manifest) -> PartResult:
    """A part that has not answered."""
    spec = next(part for part in model.fusion.parts if part.name == name)
    return PartResult(name=name, model=identity_of(manifest, spec.digest), missing=why)


def made_of(parts: Sequence[PartResult], agreement: float | None, manifest: Manifest) -> str:
    """The sentence that stands in every result."""
    assert manifest.fusion is not None  # noqa: S101
    there = [part for part in parts if not part.missing]
    way = _way(manifest.fusion, manifest.output.kind)
    models = "one model" if len(there) == 1 else f"{len(there)} models"
    each = ", ".join(_described(part, manifest) for part in there)
    return f"Made of {models} by {way}: {each}{_between(agreement, manifest)}."


def _way(fusion: Fusion, kind: str) -> str:
    if fusion.combine == "staple":
        return "STAPLE"
    weighted = "weighted " if fusion.parts[0].weight is not None else ""
    soft = " of probabilities" if fusion.combine == "mean" and kind != "regression" else ""
    return f"{weighted}{fusion.combine}{soft}"


def without(parts: Sequence[PartResult], model: FusionModel, known: Sequence[str]) -> tuple[str, ...]:
    """A sentence for each part that is missing, where routing has not told it already (``known``)."""
    runs = {part.name: part.run for part in model.fusion.parts}
    found = [(f"Without the part {part.name} ({runs[part.name]}): ", part.missing) for part in parts if part.missing]
    return tuple(f"{start}{why}." for start, why in found if not any(flag.startswith(start) for flag in known))


def provenance(
    order: JobOrder, model: FusionModel, parts: Sequence[PartResult], companions: Sequence[Companion]
) -> dict[str, str]:
    """Name -> text; what decided a part's own numbers is in its own."""
    return {
        "inputs": digest("inputs", *sorted({item.sha256 for item in order.inputs})),
        "fusion": model.fusion.combine,
        **{
            f"part {part.name}": f"missing: {part.missing}"
            if part.missing
            else f"{part.model.name} {part.model.version}, digest {part.model.digest}"
            + (f", weight {part.weight:g}" if part.weight else "")
            for part in parts
        },
        **{f"input {each.name}": each.said for each in companions if each.said},
        **libraries(),
    }


def _described(part: PartResult, manifest: Manifest) -> str:
    words = [f"{part.model.name} {part.model.version}"]
    words += [f"weight {part.weight:.2f}"] if part.weight else []
    if part.dice:
        least = min(part.dice, key=lambda label: part.dice[label])
        words.append(f"Dice {part.dice[least]:.2f}" + (f" of {least}" if len(part.dice) > 1 else ""))
    elif len(part.measurements) <= _SHOWN:
        labels = {one.number: one.label for one in part.segments}
        words += [f"{_name(one, labels)} {one.value:.4g} {one.unit.value}" for one in part.measurements]
    return f"{part.name} ({', '.join(words)})"


def _between(agreement: float | None, manifest: Manifest) -> str:
    if agreement is None or manifest.fusion is None:
        return ""
    labels = manifest.output.kind == "segmentation"
    said = f"Dice is {agreement:.2f} at least" if labels else f"probabilities differ by {1 - agreement:.0%} at most"
    if agreement >= manifest.fusion.agreement:
        return f"; between them {said}"
    wanted = manifest.fusion.agreement
    return f"; they do not agree: between them {said}, where {wanted if labels else 1 - wanted:.2f} is wanted"


def _name(one: MeasurementResult, labels: dict[int, str]) -> str:
    return one.name.meaning if one.segment is None else f"{labels[one.segment]} {one.name.meaning}"
