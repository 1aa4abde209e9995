"""Are the numbers what the labels and images say, and what a body can have?"""

from __future__ import annotations

import math

import numpy as np

from gateway.domain.errors import GateRefused
from gateway.domain.messages import MeasurementResult
from gateway.manifest import MeasurementSpec, ValueSpec
from workers.verify.evidence import Evidence

_MM = {"mm3": 1.0, "mL": 1e3, "ml": 1e3, "cm3": 1e3, "mm": 1.0, "cm": 10.0, "mm2": 1.0, "cm2": 100.0}  # UCUM
_OF_VALUES = ("mean", "percentile")


def check_measurements(evidence: Evidence) -> None:
    """One measurement for each the manifest asks for, no other, each held against labels and images.

    What can be counted is counted again; a diameter or a surface must be one that its segment can have.
    """
    if evidence.manifest.output.kind != "segmentation":
        _check_statements(evidence)
        return
    for spec, result in _pairs(evidence):
        if not _agrees(spec, result.value * _MM.get(spec.unit.value, 1.0), evidence):
            raise GateRefused(f"measurements: {spec.name.meaning} does not follow from the labels", code="measurements")


def check_plausible(evidence: Evidence) -> None:
    """Every value lies in the manifest's range; one outside it more likely means a wrong image than a rare patient."""
    pairs: list[tuple[MeasurementSpec | ValueSpec, MeasurementResult]] = [*_pairs(evidence)]
    pairs += zip(evidence.manifest.output.values, evidence.measurements, strict=False)
    for spec, result in pairs:
        if spec.plausible is not None and not spec.plausible.holds(result.value):
            unit = spec.unit.value
            segment = evidence.manifest.output.segments[result.segment - 1].label + ": " if result.segment else ""
            raise GateRefused(
                f"{segment}{spec.name.meaning} is {result.value:.6g} {unit}, outside the plausible range of "
                f"{spec.plausible.min:g} to {spec.plausible.max:g} {unit}; the image may be out of scope for the model",
                code="implausible",
            )


def _check_statements(evidence: Evidence) -> None:
    """As many numbers as the manifest names, by their names; a probability is one."""
    output = evidence.manifest.output
    asked = [(spec.name.value, "%") for spec in output.findings] + [
        (value.name.value, value.unit.value) for value in output.values
    ]
    if [(result.name.value, result.unit.value) for result in evidence.measurements] != asked:
        raise GateRefused("measurements: not those that the manifest asks for", code="measurements")
    if not all(math.isfinite(result.value) for result in evidence.measurements) or (
        output.findings and not all(0 <= result.value <= 100 for result in evidence.measurements)
    ):
        raise GateRefused("measurements: a probability is none", code="measurements")


def _pairs(evidence: Evidence) -> list[tuple[MeasurementSpec, MeasurementResult]]:
    """What was asked beside what was measured; nothing has the mean of nothing."""
    if evidence.manifest.output.kind != "segmentation":
        return []
    asked = [
        spec
        for spec in evidence.manifest.output.measurements
        if spec.kind not in _OF_VALUES or evidence.masks.total(spec.segment)
    ]
    if [_key(spec) for spec in asked] != [_key(result) for result in evidence.measurements]:
        raise GateRefused("measurements: not those that the manifest asks for", code="measurements")
    return list(zip(asked, evidence.measurements, strict=True))


def _key(item: MeasurementSpec | MeasurementResult) -> tuple[str, str, str, int | None]:
    return item.name.value, item.name.scheme, item.unit.value, item.segment


def _agrees(spec: MeasurementSpec, value: float, evidence: Evidence) -> bool:
    """``value`` in mm, mm2, mm3 or the images' own unit."""
    if spec.kind == "volume":
        return _close(value, _volume(spec.segment, evidence))
    if spec.kind in _OF_VALUES:
        values = np.sort(evidence.volume.voxels[evidence.masks.of(spec.segment)].astype(np.float64))
        if spec.kind == "mean":
            return _close(value, math.fsum(values.tolist()) / len(values), 1e-4)
        at = (spec.percentile or 0) / 100 * (len(values) - 1)
        return bool(values[math.floor(at)] - 1e-3 <= value <= values[math.ceil(at)] + 1e-3)
    if not evidence.masks.total(spec.segment):
        return value == 0
    if spec.kind == "count":
        return 1 <= value <= evidence.masks.total(spec.segment) and value == int(value)
    low, high = _surfaces(spec.segment, evidence) if spec.kind == "surface" else _lengths(spec, evidence)
    return low <= value <= high


def _lengths(spec: MeasurementSpec, evidence: Evidence) -> tuple[float, float]:
    """Of the pixel's shorter side, to the diagonal of the box around the segment in a slice."""
    rows, columns = np.nonzero(evidence.masks.of(spec.segment).any(axis=0))
    _, down, right = evidence.volume.spacing
    diagonal = math.hypot((np.ptp(rows) + 1) * down, (np.ptp(columns) + 1) * right)
    return min(down, right) * (1 - 1e-9), diagonal * (1 + 1e-9)


def _surfaces(segment: int, evidence: Evidence) -> tuple[float, float]:
    """Half of that of a ball of the same volume (no body has less; small ones are rounded), to all faces of its voxels."""
    ball = math.pi ** (1 / 3) * (6 * _volume(segment, evidence)) ** (2 / 3)
    mask = np.pad(evidence.masks.of(segment), 1)
    slices, rows, columns = evidence.volume.affine[:3, :3].T
    faces = sum(
        int(np.count_nonzero(np.diff(mask.view(np.int8), axis=axis))) * float(np.linalg.norm(np.cross(one, other)))
        for axis, (one, other) in enumerate(((rows, columns), (slices, columns), (slices, rows)))
    )
    return 0.5 * ball, faces * 1.05


def _volume(segment: int, evidence: Evidence) -> float:
    """The triple product of the three index steps, for each voxel."""
    slices, rows, columns = evidence.volume.affine[:3, :3].T
    return evidence.masks.total(segment) * abs(float(np.dot(slices, np.cross(rows, columns))))


def _close(one: float, other: float, relative: float = 1e-6) -> bool:
    return math.isclose(one, other, rel_tol=relative, abs_tol=1e-9)
