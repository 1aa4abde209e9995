"""One model of a fusion: run on its own series as it would be alone, its answer brought onto the images of the result."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gateway.bundle.fused import places, segments_of
from gateway.bundle.fusion import FusedPart
from gateway.bundle.manifest import Manifest
from gateway.domain.errors import InputRefused
from gateway.domain.messages import JobOrder, PartResult
from workers.encode.conclusion import conclude, painted
from workers.infer.answer import Answer, ask
from workers.infer.model import Model, open_model
from workers.infer.predict import Probabilities, infer_with_probabilities
from workers.infer.provenance import provenance, uncalibrated
from workers.infer.regrid import onto, same_grid
from workers.load.envelope import within
from workers.load.masks import Labels, Masks
from workers.load.several import aligned, check_same_study, images_of, load_inputs, told
from workers.load.volume import Companion, Volume

Stages = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class PartAnswer:
    """What it says about the result's segments, findings or values."""

    spec: FusedPart
    manifest: Manifest  # its own
    result: PartResult  # its own answer; weight and how far it is from the result come later
    labels: Labels | None  # of a segmentation: the result's segments, on the result's images
    chances: Probabilities | None  # of each of them, where it gives some and they are wanted
    numbers: tuple[float, ...]  # of the result's findings or values
    companions: tuple[Companion, ...]  # the series it was given beside that of the result
    scores: Mapping[str, float]  # of a detection: class -> the best score, 0 where there is no box


def answer_part(
    spec: FusedPart, bundle: Path, order: JobOrder, volume: Volume, manifest: Manifest, stages: Stages
) -> PartAnswer:
    """Opens the part, asks it and closes it again; ``manifest`` is that of the fusion, ``volume`` what results lie on.

    Raises InputRefused where it has no series (`input_missing`), refuses its images, or they do not lie on the volume, and
    ModelOutputInvalid for an answer that its manifest does not promise.
    """
    own = order_of(spec, bundle, order)
    if not own.inputs:
        raise InputRefused("there is no series for it", code="input_missing")
    with stages("open"):
        model = open_model(bundle)
    try:
        return _answered(spec, own, model, volume, manifest, stages)
    finally:
        del model
        gc.collect()  # the next one needs the memory


def order_of(spec: FusedPart, bundle: Path, order: JobOrder) -> JobOrder:
    """The order for a part alone: its own images, under the names that its own manifest knows."""
    files = [(file, *file.input.partition("/")[::2]) for file in order.inputs]
    return replace(
        order,
        bundle=str(bundle),
        parts=(),
        inputs=tuple(replace(file, input=name) for file, part, name in files if part == spec.name and name),
    )


def _answered(
    spec: FusedPart, order: JobOrder, model: Model, volume: Volume, manifest: Manifest, stages: Stages
) -> PartAnswer:
    assert manifest.fusion is not None  # noqa: S101
    paints = manifest.output.kind == "segmentation"
    with stages("load"):
        own, _ = within(load_inputs(order, model.manifest), model.reference, model.manifest.input.envelope)
        place = _placed(own, volume, manifest) if paints else _of_one_study(own, volume)
    with stages("infer"):
        chances = None
        if paints and manifest.fusion.combine == "mean":
            labels, chances = infer_with_probabilities(model, own)
            answer = Answer(labels=labels)
        else:
            answer = ask(model, own)
    with stages("measure"):
        found = conclude(answer, own, model.manifest, order.job_id)
    own_segments = segments_of(spec, model.manifest.output, manifest.output) if paints else {}
    asked = not paints and manifest.fusion.combine != "rules"
    return PartAnswer(
        spec=spec,
        manifest=model.manifest,
        result=PartResult(
            name=spec.name,
            model=model.identity,
            measurements=tuple(one for one in found.measurements if one.finding is None),
            segments=painted(answer.labels, model.manifest),
            provenance={**provenance(order, model, own), **uncalibrated(answer, model)},
            flags=(*own.flags, *place.flags, *found.sentences),
        ),
        labels=_merged(place.moved(answer.labels), own_segments) if paints else None,
        chances=None if chances is None else _summed(place.moved_softly(chances), own_segments),
        numbers=tuple(answer.numbers[at] for at in places(model.manifest.output, manifest.output)) if asked else (),
        companions=_companions(spec, own, volume, place.told),
        scores=_scores(answer, model.manifest),
    )


def _scores(answer: Answer, manifest: Manifest) -> dict[str, float]:
    if manifest.output.kind != "detection":
        return {}
    return {
        one.name.meaning: max((box.score for box in answer.boxes if box.label == label), default=0.0)
        for label, one in enumerate(manifest.output.findings)
    }


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a part's images lie, as seen from those of the result."""

    own: Volume
    target: Volume  # of the result
    motion: NDArray[np.float64] | None  # 4 x 4, LPS mm of the result's to those of the part's; None: both are one grid
    told: str = ""
    flags: tuple[str, ...] = ()

    def moved(self, labels: Labels) -> Labels:
        """Nearest voxel; nothing outside."""
        if self.motion is None:
            return labels
        stacked = labels if labels.ndim == 4 else labels[None]
        found = np.ascontiguousarray(onto(stacked, self.own, self.target, self.motion, order=0), np.uint8)
        return found if labels.ndim == 4 else found[0]

    def moved_softly(self, chances: Probabilities) -> Probabilities:
        """Linearly; 0 outside."""
        if self.motion is None:
            return chances
        return np.ascontiguousarray(onto(chances, self.own, self.target, self.motion, order=1), np.float32)


def _placed(own: Volume, volume: Volume, manifest: Manifest) -> _Place:
    check_same_study(volume, own)
    if own.first.SeriesInstanceUID == volume.first.SeriesInstanceUID:
        shape = volume.voxels.shape
        here = own.voxels.shape == shape and own.places == volume.places and same_grid(own.affine, volume.affine, shape)
        return _Place(own=own, target=volume, motion=None if here else np.eye(4))
    found, said = aligned(volume, own, manifest.registration)
    return _Place(own=own, target=volume, motion=found.motion, told=told(found, own.first), flags=said)


def _of_one_study(own: Volume, volume: Volume) -> _Place:
    """Numbers lie nowhere."""
    check_same_study(volume, own)
    return _Place(own=own, target=volume, motion=None)


def _merged(labels: Labels, segments: dict[int, tuple[int, ...]]) -> Labels:
    """Labels of the result's segments; where a part lets its own overlap, the lower number stands."""
    masks = Masks(labels)
    merged = np.zeros(masks.shape, np.uint8)
    for number, own in sorted(segments.items(), reverse=True):
        for each in own:
            merged[masks.of(each)] = number
    return merged


def _summed(chances: Probabilities, segments: dict[int, tuple[int, ...]]) -> Probabilities:
    """Of several segments that exclude each other one holds with the sum of their probabilities."""
    each = [chances[[one - 1 for one in own]].sum(axis=0) for _, own in sorted(segments.items())]
    summed: Probabilities = np.minimum(np.stack(each), np.float32(1))
    return summed


def _companions(spec: FusedPart, own: Volume, volume: Volume, said: str) -> tuple[Companion, ...]:
    """Its series beside that of the result, for reports to name their images; their voxels are done with."""
    nothing = np.broadcast_to(np.float32(0), volume.voxels.shape)
    further = ((each.headers, each.said, each.prior) for each in own.companions if each.headers)
    return tuple(
        Companion(name=f"{spec.name}/{number}", voxels=nothing, headers=headers, said=how, prior=prior)
        for number, (headers, how, prior) in enumerate([(images_of(own), said, False), *further], start=1)
        if headers[0].SeriesInstanceUID != volume.first.SeriesInstanceUID
    )
