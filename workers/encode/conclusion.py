"""From a model's answer to what is reported: findings one by one, and every number."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.bundle.manifest import Manifest
from gateway.domain.messages import MeasurementResult, SegmentResult
from workers.encode.findings import detected, lesions_of
from workers.encode.measure import measure
from workers.encode.side import contradictions
from workers.encode.statements import counted, most_certain, said, said_of_each
from workers.infer.answer import Answer
from workers.load.masks import Labels, Masks
from workers.load.places import Finding
from workers.load.volume import Volume


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """What is reported."""

    findings: tuple[Finding, ...] = ()
    measurements: tuple[MeasurementResult, ...] = ()
    each: tuple[MeasurementResult, ...] = ()  # of single images
    sentences: tuple[str, ...] = ()  # about what is not reported one by one, and what a reader must know


def conclude(answer: Answer, volume: Volume, manifest: Manifest, job_id: str) -> Conclusion:
    """The same answer always gives the same numbers, in the same order."""
    found = _concluded(answer, volume, manifest, job_id)
    return replace(found, sentences=(*found.sentences, *contradictions(volume, manifest)))


def _concluded(answer: Answer, volume: Volume, manifest: Manifest, job_id: str) -> Conclusion:
    output = manifest.output
    if output.kind == "segmentation":
        found = lesions_of(answer.labels, volume, manifest, job_id)
        measurements = measure(answer.labels, volume, manifest, found.findings)
        return Conclusion(findings=found.findings, measurements=measurements, sentences=found.sentences)
    if output.kind == "detection":
        found = detected(answer.boxes, volume, manifest, job_id)
        measurements = counted(answer.boxes, found.findings, volume, manifest)
        return Conclusion(findings=found.findings, measurements=measurements, sentences=found.sentences)
    if output.scope == "image":
        each = said_of_each(answer.each, volume, manifest)
        return Conclusion(measurements=most_certain(each, manifest), each=each)
    return Conclusion(measurements=said(answer.numbers, manifest))


def painted(labels: Labels, manifest: Manifest) -> tuple[SegmentResult, ...]:
    """Each segment of the manifest with how many voxels it has."""
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
