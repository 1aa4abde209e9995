"""What a model's process does with one job: load, infer, measure, encode, verify."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gateway.domain.errors import GateRefused, InputRefused, ModelOutputInvalid
from gateway.domain.messages import JobOrder, Outcome, SegmentResult
from gateway.manifest import Manifest
from workers.encode.measure import measure
from workers.encode.objects import encode
from workers.infer.model import Model
from workers.infer.predict import infer
from workers.load.masks import Labels, Masks
from workers.load.series import load
from workers.load.volume import Volume
from workers.verify.gate import verify

Progress = Callable[[str], None]


def run(order: JobOrder, model: Model, progress: Progress) -> Outcome:
    """Does one job and calls ``progress`` with the name of each stage as it begins.

    Images the model must not be run on, output it must not give and results that are not right become an outcome with
    the status `refused`; every other error passes through.
    """
    stages = _Stages(progress)
    try:
        return _complete(order, model, stages)
    except (InputRefused, ModelOutputInvalid, GateRefused) as refusal:
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


def _complete(order: JobOrder, model: Model, stages: _Stages) -> Outcome:
    manifest = model.manifest
    with stages("load"):
        volume = load(order, manifest)
    with stages("infer"):
        labels = infer(model, volume)
    with stages("measure"):
        measurements = measure(labels, volume, manifest)
    with stages("encode"):
        objects = encode(volume, labels, measurements, manifest, model.identity, order)
    with stages("verify"):
        verify(objects, volume, labels, measurements, manifest, order)
    return Outcome(
        job_id=order.job_id,
        status="complete",
        model=model.identity,
        source_series_uid=str(volume.first.SeriesInstanceUID),
        source_instances=len(order.inputs),
        segments=_segments(labels, manifest),
        measurements=measurements,
        objects=objects,
        flags=_flags(order, volume),
        timings=stages.seconds,
    )


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
