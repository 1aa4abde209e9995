"""Are the numbers what the labels say, and what a body can have?"""

from __future__ import annotations

import math

import numpy as np

from gateway.domain.errors import GateRefused
from gateway.domain.messages import MeasurementResult
from gateway.manifest import MeasurementSpec
from workers.verify.evidence import Evidence

_MM3 = {"mm3": 1.0, "mL": 1e3, "ml": 1e3, "cm3": 1e3}  # UCUM


def check_measurements(evidence: Evidence) -> None:
    """One measurement for each the manifest asks for, no other, each counted again from the labels."""
    asked, found = evidence.manifest.output.measurements, evidence.measurements
    if [_key(spec) for spec in asked] != [_key(result) for result in found]:
        raise GateRefused("measurements: not those that the manifest asks for", code="measurements")
    for spec, result in zip(asked, found, strict=True):
        if not math.isclose(result.value, _volume(spec, evidence), rel_tol=1e-6, abs_tol=1e-9):
            raise GateRefused(f"measurements: {spec.name.meaning} does not follow from the labels", code="measurements")


def check_plausible(evidence: Evidence) -> None:
    """Every value lies in the manifest's range; one outside it more likely means a wrong image than a rare patient."""
    for spec, result in zip(evidence.manifest.output.measurements, evidence.measurements, strict=True):
        if spec.plausible is not None and not spec.plausible.holds(result.value):
            unit, label = spec.unit.value, evidence.manifest.output.segments[spec.segment - 1].label
            raise GateRefused(
                f"{label}: {spec.name.meaning} is {result.value:.6g} {unit}, outside the plausible range of "
                f"{spec.plausible.min:g} to {spec.plausible.max:g} {unit}; the image may be out of scope for the model",
                code="implausible",
            )


def _key(item: MeasurementSpec | MeasurementResult) -> tuple[str, str, str, int | None]:
    return item.name.value, item.name.scheme, item.unit.value, item.segment


def _volume(spec: MeasurementSpec, evidence: Evidence) -> float:
    """The triple product of the three index steps, in the unit asked for."""
    slices, rows, columns = evidence.volume.affine[:3, :3].T
    voxel = abs(float(np.dot(slices, np.cross(rows, columns))))
    return evidence.masks.total(spec.segment) * voxel / _MM3[spec.unit.value]
