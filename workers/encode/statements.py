"""What a model said, as numbers with names and units: of all images, of one, or of a box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gateway.bundle.manifest import Manifest
from gateway.bundle.output import FindingSpec
from gateway.domain.codes import ABSENT, CERTAINTY, PRESENT
from gateway.domain.messages import MeasurementResult
from workers.encode.codes import DEPTH, FINDINGS, HEIGHT, MILLIMETER, PERCENT, WIDTH
from workers.encode.section import reach
from workers.load.places import Box, Finding
from workers.load.volume import Volume


def said(numbers: Sequence[float], manifest: Manifest) -> tuple[MeasurementResult, ...]:
    """What a classification or regression said of all images: probabilities in per cent, numbers in their unit."""
    output = manifest.output
    if output.findings:
        return tuple(
            replace(_certainty(spec, number), confidence=_confidence(number, manifest))
            for spec, number in zip(output.findings, numbers, strict=True)
        )
    return tuple(
        MeasurementResult(name=value.name.code(), value=number, unit=value.unit.code())
        for value, number in zip(output.values, numbers, strict=True)
    )


def _confidence(number: float, manifest: Manifest) -> str:
    """How likely it is that a finding holds, or does not: only a calibrated probability can say it."""
    asked = manifest.calibration
    if asked is None:
        return ""
    right = max(number, 1 - number)
    return "high" if right >= asked.high else "moderate" if right >= asked.moderate else "low"


def said_of_each(
    numbers: Sequence[Sequence[float]], volume: Volume, manifest: Manifest
) -> tuple[MeasurementResult, ...]:
    """What a classification said of each image, by finding and then image; slices that have none are left out."""
    return tuple(
        replace(
            _certainty(spec, answer[place]),
            sop_instance_uid=str(header.SOPInstanceUID),
            frame_number=volume.frame_number(index),
        )
        for place, spec in enumerate(manifest.output.findings)
        for index, (answer, header) in enumerate(zip(numbers, volume.headers, strict=True))
        if header is not None
    )


def most_certain(each: Sequence[MeasurementResult], manifest: Manifest) -> tuple[MeasurementResult, ...]:
    """For each finding the image that shows it most; the first of several."""
    per_finding = len(each) // len(manifest.output.findings)
    return tuple(
        max(each[start : start + per_finding], key=lambda one: one.value) for start in range(0, len(each), per_finding)
    )


def counted(
    boxes: Sequence[Box], findings: Sequence[Finding], volume: Volume, manifest: Manifest
) -> tuple[MeasurementResult, ...]:
    """How many boxes of each class there are, none included; then of each finding its certainty and extents.

    Extents are those of the least block along rows, columns and slices of the images that holds the box, mm.
    """
    totals = [
        MeasurementResult(name=spec.name.code(), value=float(sum(box.label == label for box in boxes)), unit=FINDINGS)
        for label, spec in enumerate(manifest.output.findings)
    ]
    each = []
    for finding in findings:
        assert finding.box is not None  # noqa: S101
        number = finding.told.number
        each.append(MeasurementResult(name=CERTAINTY, value=100 * finding.box.score, unit=PERCENT, finding=number))
        extents = np.ptp(reach(finding.box, volume.affine), axis=0) * volume.spacing
        for name, extent in zip((DEPTH, HEIGHT, WIDTH), extents.tolist(), strict=True):
            if name is not DEPTH or finding.box.slice is None:
                each.append(MeasurementResult(name=name, value=extent, unit=MILLIMETER, finding=number))
    return (*totals, *each)


def _certainty(spec: FindingSpec, number: float) -> MeasurementResult:
    verdict = () if spec.threshold is None else (PRESENT if number >= spec.threshold else ABSENT,)
    return MeasurementResult(name=spec.name.code(), value=100 * number, unit=PERCENT, probability=True, verdict=verdict)
