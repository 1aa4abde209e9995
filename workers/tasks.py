"""What a model's process does with one job: load, infer, measure, encode, verify."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from gateway.domain.errors import GateRefused, HilumError, InputRefused, ModelOutputInvalid
from gateway.domain.job import OnRefusal
from gateway.domain.messages import Explanation, JobOrder, MeasurementResult, Outcome, SegmentResult
from gateway.domain.refusals import to_tell
from gateway.manifest import Manifest
from workers.encode.conclusion import conclude
from workers.encode.objects import encode
from workers.encode.refusal import Refusal, encode_refusal
from workers.explain.explanation import explain
from workers.explain.sureness import sureness
from workers.explain.uncertainty import assess, sentences, with_intervals
from workers.infer.agreement import compare
from workers.infer.answer import Answer, ask
from workers.infer.model import Model
from workers.infer.output import QuantityMap
from workers.infer.provenance import provenance
from workers.load.envelope import enforce
from workers.load.headers import readable_headers
from workers.load.masks import Labels, Masks
from workers.load.part10 import BROKEN
from workers.load.several import load_inputs
from workers.load.volume import Volume
from workers.verify.gate import verify
from workers.verify.refusal import verify_refusal

Progress = Callable[[str], None]


def run(order: JobOrder, model: Model, progress: Progress) -> Outcome:
    """Does one job and calls ``progress`` with the name of each stage as it begins.

    Images the model must not be run on, output it must not give and results that are not right become an outcome with
    the status `refused`; every other error passes through.
    """
    stages = _Stages(progress)
    try:
        return _complete(order, model, stages)
    except InputRefused as refusal:
        return _told(order, model, _refused(order, model, refusal, stages))
    except (ModelOutputInvalid, GateRefused) as refusal:
        return _refused(order, model, refusal, stages)


def _refused(order: JobOrder, model: Model, refusal: HilumError, stages: _Stages) -> Outcome:
    return Outcome(
        job_id=order.job_id,
        status="refused",
        model=model.identity,
        reason_code=refusal.code,
        reason=refusal.message,
        source_instances=len(order.inputs),
        flags=order.flags,
        timings=stages.seconds,
    )


def _told(order: JobOrder, model: Model, outcome: Outcome) -> Outcome:
    """With the reason in codes and a report, where archive and EHR are told and it is clear whose images they are."""
    codes = to_tell(OnRefusal(order.on_refusal), outcome.reason_code)
    headers = readable_headers(_reference(order, model)) if codes else ()
    if not codes or not headers:
        return outcome
    outcome = replace(outcome, refusal=codes, source_series_uid=str(headers[0].SeriesInstanceUID))
    refusal = Refusal(
        manifest=model.manifest,
        identity=model.identity,
        order=order,
        headers=headers,
        reason=outcome.reason,
        codes=codes,
    )
    try:
        objects = encode_refusal(refusal)
        verify_refusal(objects, headers, codes, model.manifest, order)
    except (GateRefused, *BROKEN) as problem:  # the images are odd already; the message to the EHR goes without it
        said = problem.message if isinstance(problem, GateRefused) else type(problem).__name__
        return replace(outcome, flags=(*outcome.flags, f"No report could be written for the archive: {said}."))
    return replace(outcome, objects=objects)


def _reference(order: JobOrder, model: Model) -> JobOrder:
    """With the images of the first of several inputs alone: it is on them that results lie."""
    name = model.manifest.input.name
    return replace(order, inputs=tuple(file for file in order.inputs if file.input in ("", name)))


def _complete(order: JobOrder, model: Model, stages: _Stages) -> Outcome:
    manifest = model.manifest
    with stages("load"):
        volume, quality = _within(load_inputs(order, manifest), model)
    with stages("infer"):
        answer = ask(model, volume)
    if order.compare and model.plain is not None:
        with stages("compare"):
            quality = quality | compare(model, volume, answer)
    with stages("measure"):
        found = conclude(answer, volume, manifest, order.job_id)
    volume = replace(volume, flags=(*volume.flags, *found.sentences))
    volume, measurements, maps = _asked_again(model, volume, answer.labels, found.measurements, stages)
    volume, reasons, more = _asked_why(model, volume, answer.numbers, measurements, stages)
    maps = (*maps, *more)
    told = {**provenance(order, model, volume), **_raw(answer, model)}
    with stages("encode"):
        objects = encode(
            volume, answer.labels, measurements, manifest, model.identity, order, maps, found.findings,
            each=found.each, provenance=told,
        )  # fmt: skip
    with stages("verify"):
        verify(objects, volume, answer.labels, measurements, manifest, order, maps, found.findings, found.each)
    return Outcome(
        job_id=order.job_id,
        status="complete",
        model=model.identity,
        source_series_uid=str(volume.first.SeriesInstanceUID),
        source_instances=len(order.inputs),
        segments=_segments(answer.labels, manifest),
        findings=tuple(one.told for one in found.findings),
        measurements=measurements,
        objects=objects,
        flags=_flags(order, volume),
        timings=stages.seconds,
        quality=quality,
        provenance=told,
        explanations=reasons,
    )


def _within(volume: Volume, model: Model) -> tuple[Volume, dict[str, float]]:
    """The volume and its figures, where the manifest has an envelope; raises InputRefused outside it."""
    envelope = model.manifest.input.envelope
    if envelope is None or model.reference is None:
        return volume, {}
    checked, verdict = enforce(volume, model.reference, envelope)
    return checked, {**{name: round(value, 6) for name, value in verdict.figures.items()}, "outside": verdict.score}


_Measured = tuple[MeasurementResult, ...]


def _asked_again(
    model: Model, volume: Volume, labels: Labels, measurements: _Measured, stages: _Stages
) -> tuple[Volume, _Measured, tuple[QuantityMap, ...]]:
    """Measurements with their intervals, a map and a flag for each segment, where the manifest wants to know."""
    settings = model.manifest.uncertainty
    if settings is None or model.manifest.output.kind != "segmentation" or model.manifest.output.overlapping:
        return volume, measurements, ()
    with stages("uncertainty"):
        # Dropout is frozen in a traced network, and intervals of a narrower type would be wider.
        found = assess(model.plain or model, volume, labels, settings)
    voxels = {spec.number: Masks(labels).total(spec.number) for spec in model.manifest.output.segments}
    measured = with_intervals(measurements, found, voxels)
    said = sentences(measured, found, voxels, model)
    return replace(volume, flags=(*volume.flags, *said)), measured, found.maps


def _asked_why(
    model: Model, volume: Volume, numbers: tuple[float, ...], measurements: _Measured, stages: _Stages
) -> tuple[Volume, tuple[Explanation, ...], tuple[QuantityMap, ...]]:
    """How sure a calibrated classifier is, and the reasons, where the manifest wants to know them."""
    said = [] if model.calibration is None else [sureness(measurements, model.calibration)]
    settings, found = model.manifest.explanation, None
    if settings is not None:
        with stages("explain"):
            found = explain(model, volume, numbers, settings)
        said.append(found.sentence)
    flagged = replace(volume, flags=(*volume.flags, *said)) if said else volume
    return flagged, (() if found is None else (found.explained,)), (() if found is None else found.maps)


def _raw(answer: Answer, model: Model) -> dict[str, str]:
    """What the network said before its calibration."""
    if model.calibration is None:
        return {}
    return {
        "calibration": model.calibration.words,
        "raw_probabilities": ", ".join(f"{number:.6f}" for number in answer.raw),
    }


def _segments(labels: Labels, manifest: Manifest) -> tuple[SegmentResult, ...]:
    masks = Masks(labels)
    return tuple(
        SegmentResult(
            number=spec.number,
            label=spec.label,
            category=spec.category.code(),
            type=spec.type.code(),
            voxels=masks.total(spec.number),
        )
        for spec in manifest.output.segments
    )


def _flags(order: JobOrder, volume: Volume) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*order.flags, *volume.flags)))


class _Stages:
    """Says which stage begins and how long each took."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self._progress(name)
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(time.perf_counter() - begun, 4)
