"""What a model's process does with one job: load, infer, measure, encode, verify."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from gateway.domain.errors import GateRefused, HilumError, InputRefused, ModelOutputInvalid
from gateway.domain.job import OnRefusal
from gateway.domain.messages import Explanation, JobOrder, MeasurementResult, Outcome, ResultObject
from gateway.domain.refusals import to_tell
from workers.encode.conclusion import Conclusion, conclude, painted
from workers.encode.objects import encode
from workers.encode.refusal import Refusal, encode_refusal
from workers.explain.explanation import explain
from workers.explain.sureness import sureness
from workers.explain.uncertainty import assess, sentences, with_intervals
from workers.fuse.model import FusionModel
from workers.infer.agreement import compare
from workers.infer.answer import Answer, ask
from workers.infer.model import Model
from workers.infer.output import QuantityMap
from workers.infer.provenance import provenance, uncalibrated
from workers.load.envelope import within
from workers.load.headers import readable_headers
from workers.load.masks import Labels, Masks
from workers.load.part10 import BROKEN
from workers.load.several import load_inputs
from workers.load.volume import Volume
from workers.verify.gate import verify
from workers.verify.refusal import verify_refusal

Progress = Callable[[str], None]


def run(order: JobOrder, model: Model | FusionModel, progress: Progress) -> Outcome:
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


def _refused(order: JobOrder, model: Model | FusionModel, refusal: HilumError, stages: _Stages) -> Outcome:
    return Outcome(
        job_id=order.job_id,
        status="refused",
        model=model.identity,
        reason_code=refusal.code,
        reason=refusal.message,
        source_instances=_images(order),
        flags=order.flags,
        timings=stages.seconds,
    )


def _told(order: JobOrder, model: Model | FusionModel, outcome: Outcome) -> Outcome:
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


def _reference(order: JobOrder, model: Model | FusionModel) -> JobOrder:
    """With the images of the first of several inputs alone: it is on them that results lie."""
    name = model.manifest.input.name
    return replace(order, inputs=tuple(file for file in order.inputs if file.input in ("", name)))


def _complete(order: JobOrder, model: Model | FusionModel, stages: _Stages) -> Outcome:
    """The answer of a network, or of several, measured, written and judged."""
    if isinstance(model, FusionModel):
        from workers.fuse.fused import fuse  # CEL takes half a second to import, which other models need not wait for

        fused = fuse(order, model, stages)
        volume, answer, quality, parts = fused.volume, fused.answer, fused.quality, fused.parts
    else:
        volume, answer, quality = _answered(order, model, stages)
        parts = ()
    with stages("measure"):
        found = conclude(answer, volume, model.manifest, order.job_id)
    volume = replace(volume, flags=(*volume.flags, *found.sentences))
    measurements = found.measurements
    maps: tuple[QuantityMap, ...] = ()
    reasons: tuple[Explanation, ...] = ()
    if isinstance(model, FusionModel):
        told = fused.provenance
    else:
        volume, measurements, maps = _asked_again(model, volume, answer.labels, measurements, stages)
        volume, reasons, more = _asked_why(model, volume, answer.numbers, measurements, stages)
        maps = (*maps, *more)
        told = {**provenance(order, model, volume), **uncalibrated(answer, model)}
    objects = _judged(order, model, volume, answer, replace(found, measurements=measurements), maps, told, stages)
    return Outcome(
        job_id=order.job_id,
        status="complete",
        model=model.identity,
        source_series_uid=str(volume.first.SeriesInstanceUID),
        source_instances=_images(order),
        segments=painted(answer.labels, model.manifest),
        findings=tuple(one.told for one in found.findings),
        measurements=measurements,
        objects=objects,
        flags=_flags(order, volume),
        timings=stages.seconds,
        quality=quality,
        provenance=told,
        explanations=reasons,
        parts=parts,
    )


def _answered(order: JobOrder, model: Model, stages: _Stages) -> tuple[Volume, Answer, dict[str, float]]:
    """The images, what one network says of them, and how far the images are from its envelope."""
    with stages("load"):
        loaded = load_inputs(order, model.manifest)
        volume, quality = within(loaded, model.reference, model.manifest.input.envelope)
    with stages("infer"):
        answer = ask(model, volume)
    if order.compare and model.plain is not None:
        with stages("compare"):
            quality = quality | compare(model, volume, answer)
    return volume, answer, quality


def _judged(
    order: JobOrder,
    model: Model | FusionModel,
    volume: Volume,
    answer: Answer,
    found: Conclusion,
    maps: tuple[QuantityMap, ...],
    told: dict[str, str],
    stages: _Stages,
) -> tuple[ResultObject, ...]:
    manifest, labels, measurements = model.manifest, answer.labels, found.measurements
    with stages("encode"):
        objects = encode(
            volume, labels, measurements, manifest, model.identity, order, maps, found.findings,
            each=found.each, provenance=told,
        )  # fmt: skip
    with stages("verify"):
        verify(objects, volume, labels, measurements, manifest, order, maps, found.findings, found.each)
    return objects


def _images(order: JobOrder) -> int:
    """Parts of a fusion may have been given the same ones."""
    return len({file.sop_instance_uid for file in order.inputs})


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
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - begun, 4)
