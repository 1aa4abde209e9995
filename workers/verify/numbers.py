"""Are the numbers what the labels and images say, and what a body can have?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.bundle.output import MeasurementSpec, ValueSpec
from gateway.domain.errors import GateRefused
from gateway.domain.messages import MeasurementResult
from workers.verify.evidence import Evidence

_MM = {"mm3": 1.0, "mL": 1e3, "ml": 1e3, "cm3": 1e3, "mm": 1.0, "cm": 10.0, "mm2": 1.0, "cm2": 100.0}  # UCUM
_OF_VALUES = ("mean", "percentile")
_PRESENT, _ABSENT = "52101004", "2667000"  # SCT


def check_measurements(evidence: Evidence) -> None:
    """One measurement for each the manifest asks for, no other, each held against labels and images.

    What can be counted is counted again; a diameter or a surface must be one that its segment can have.
    """
    kind = evidence.manifest.output.kind
    if kind == "detection":
        _check_detections(evidence)
        return
    if kind != "segmentation":
        _check_statements(evidence)
        return
    for spec, result in _pairs(evidence):
        if not _agrees(spec, result.value * _MM.get(spec.unit.value, 1.0), result.finding, evidence):
            raise GateRefused(f"measurements: {spec.name.meaning} does not follow from the labels", code="measurements")


def check_plausible(evidence: Evidence) -> None:
    """Every value lies in the manifest's range; one outside it more likely means a wrong image than a rare patient."""
    pairs: list[tuple[MeasurementSpec | ValueSpec, MeasurementResult]] = [*_pairs(evidence)]
    pairs += zip(evidence.manifest.output.values, evidence.measurements, strict=False)
    for spec, result in pairs:
        if spec.plausible is not None and not spec.plausible.holds(result.value):
            unit = spec.unit.value
            raise GateRefused(
                f"{_owner(result, evidence)}{spec.name.meaning} is {result.value:.6g} {unit}, outside the plausible range of "
                f"{spec.plausible.min:g} to {spec.plausible.max:g} {unit}; the image may be out of scope for the model",
                code="implausible",
            )


def _owner(result: MeasurementResult, evidence: Evidence) -> str:
    if result.finding:
        return f"{evidence.findings[result.finding - 1].told.label}: "
    return f"{evidence.manifest.output.segments[result.segment - 1].label}: " if result.segment else ""


def _check_statements(evidence: Evidence) -> None:
    """As many numbers as the manifest names, by their names; a probability is one. Of single images, the largest of each."""
    output = evidence.manifest.output
    asked = [(spec.name.value, "%") for spec in output.findings] + [
        (value.name.value, value.unit.value) for value in output.values
    ]
    if [(result.name.value, result.unit.value) for result in evidence.measurements] != asked:
        raise GateRefused("measurements: not those that the manifest asks for", code="measurements")
    every = (*evidence.measurements, *evidence.each)
    if not all(math.isfinite(result.value) for result in every) or (
        output.findings and not all(0 <= result.value <= 100 for result in every)
    ):
        raise GateRefused("measurements: a probability is none", code="measurements")
    for result, spec in zip(evidence.measurements, output.findings, strict=False):
        present = spec.threshold is not None and result.value >= 100 * spec.threshold
        verdict = [] if spec.threshold is None else [_PRESENT if present else _ABSENT]
        if [code.value for code in result.verdict] != verdict:
            raise GateRefused("measurements: a finding is present, or not, against its threshold", code="measurements")
    if output.scope == "image":
        _check_each(evidence)


def _check_each(evidence: Evidence) -> None:
    images = len(evidence.slice_of)
    for result in evidence.measurements:
        each = [one for one in evidence.each if one.name == result.name]
        if len({(one.sop_instance_uid, one.frame_number) for one in each}) != images or len(each) != images:
            raise GateRefused("measurements: not one number for each image", code="measurements")
        if result not in each or result.value < max(one.value for one in each):
            raise GateRefused("measurements: not the largest of all images", code="measurements")


def _check_detections(evidence: Evidence) -> None:
    """How many of each class, then of each box its certainty and extents along the images' axes."""
    specs, settings = evidence.manifest.output.findings, evidence.manifest.output.boxes
    totals, listed = evidence.statements, evidence.findings
    if [total.name for total in totals] != [spec.name.code() for spec in specs]:
        raise GateRefused("measurements: not one count for each class", code="measurements")
    for label, total in enumerate(totals):
        here = sum(one.box is not None and one.box.label == label for one in listed)
        cut_off = settings is not None and len(listed) >= settings.most
        if total.value != int(total.value) or total.value < here or (total.value > here and not cut_off):
            raise GateRefused("measurements: a count is not that of the boxes", code="measurements")
    for one in listed:
        if one.box is None:
            continue
        index = (np.linalg.inv(evidence.volume.affine) @ np.column_stack([one.box.corners, np.ones(8)]).T)[:3]
        depth, height, width = (np.ptp(index, axis=1) * evidence.volume.spacing).tolist()
        expected = [100 * one.box.score, *([depth] if one.box.slice is None else []), height, width]
        found = [result.value for result in evidence.measurements if result.finding == one.told.number]
        if len(found) != len(expected) or not all(map(_close, found, expected)):
            raise GateRefused(f"measurements: not those of box {one.told.number}", code="measurements")


@dataclass(frozen=True)
class _Region:
    """What a number was measured on."""

    mask: NDArray[np.bool_]
    values: NDArray[np.float32]  # of the images, on the same grid
    each: NDArray[np.float64]  # mm3 of one voxel of each slice

    @property
    def size(self) -> float:
        """In mm3."""
        return float(np.count_nonzero(self.mask, axis=(1, 2)) @ self.each)

    @property
    def weights(self) -> NDArray[np.float64]:
        """mm3 of each of its voxels."""
        return np.repeat(self.each, np.count_nonzero(self.mask, axis=(1, 2)))


def _pairs(evidence: Evidence) -> list[tuple[MeasurementSpec, MeasurementResult]]:
    """What was asked beside what was measured; nothing has the mean of nothing."""
    output = evidence.manifest.output
    if output.kind != "segmentation":
        return []
    asked: list[tuple[MeasurementSpec, int | None]] = [
        (spec, None)
        for spec in output.measurements
        if spec.per == "segment" and (spec.kind not in _OF_VALUES or evidence.masks.total(spec.segment))
    ]
    asked += [
        (spec, finding.told.number)
        for finding in evidence.findings
        for spec in output.measurements
        if spec.per == "lesion" and spec.segment == finding.told.segment
    ]
    if [_asked_key(*one) for one in asked] != [_key(result) for result in evidence.measurements]:
        raise GateRefused("measurements: not those that the manifest asks for", code="measurements")
    return [(spec, result) for (spec, _), result in zip(asked, evidence.measurements, strict=True)]


def _region(spec: MeasurementSpec, finding: int | None, evidence: Evidence) -> _Region:
    if finding is None:
        return _Region(evidence.masks.of(spec.segment), evidence.volume.voxels, voxel_volumes(evidence))
    part = evidence.findings[finding - 1].part
    assert part is not None  # noqa: S101
    return _Region(part.mask, evidence.volume.voxels[part.place], voxel_volumes(evidence)[part.place[0]])


_Key = tuple[str, str, str, int | None, int | None]


def _asked_key(spec: MeasurementSpec, finding: int | None) -> _Key:
    return spec.name.value, spec.name.scheme, spec.unit.value, spec.segment if finding is None else None, finding


def _key(item: MeasurementResult) -> _Key:
    return item.name.value, item.name.scheme, item.unit.value, item.segment, item.finding


def _agrees(spec: MeasurementSpec, value: float, finding: int | None, evidence: Evidence) -> bool:
    """``value`` in mm, mm2, mm3 or the images' own unit."""
    if spec.kind == "volume" and finding is None:  # of a hundred organs, counted once
        return _close(value, float(evidence.masks.counts[:, spec.segment] @ voxel_volumes(evidence)))
    region = _region(spec, finding, evidence)
    voxels = int(np.count_nonzero(region.mask))
    if spec.kind == "volume":
        return _close(value, region.size)
    if spec.kind in _OF_VALUES:
        return _agrees_with_values(spec, value, region)
    if not voxels:
        return value == 0
    if spec.kind == "count":
        least = 0 if any(one.segment == spec.segment for one in evidence.manifest.output.lesions) else 1
        return least <= value <= voxels and value == int(value)
    low, high = _surfaces(region, evidence) if spec.kind == "surface" else _lengths(region.mask, evidence)
    return low <= value <= high


def _agrees_with_values(spec: MeasurementSpec, value: float, region: _Region) -> bool:
    """A mean, or a percentile between two neighbours in order; a voxel counts by its volume."""
    values, weights = region.values[region.mask].astype(np.float64), region.weights
    if spec.kind == "mean":
        return _close(value, math.fsum((values * weights).tolist()) / math.fsum(weights.tolist()), 1e-4)
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order])
    step, wanted = weights.max() * (1 + 1e-9), (spec.percentile or 0) / 100 * below[-1]
    near = values[order][(below >= wanted - step) & (below - weights[order] <= wanted + step)]
    return bool(near.min() - 1e-3 <= value <= near.max() + 1e-3)


def _lengths(mask: NDArray[np.bool_], evidence: Evidence) -> tuple[float, float]:
    """Of the pixel's shorter side, to the diagonal of the box around the segment in a slice."""
    rows, columns = np.nonzero(mask.any(axis=0))
    _, down, right = evidence.volume.spacing
    diagonal = math.hypot((np.ptp(rows) + 1) * down, (np.ptp(columns) + 1) * right)
    return min(down, right) * (1 - 1e-9), diagonal * (1 + 1e-9)


def _surfaces(region: _Region, evidence: Evidence) -> tuple[float, float]:
    """A quarter of that of a ball of the same volume (no body has less, but of one voxel the definition finds 0.3 of it), to
    all faces of its voxels."""
    ball = math.pi ** (1 / 3) * (6 * region.size) ** (2 / 3)
    padded = np.pad(region.mask, 1)
    slices, rows, columns = evidence.volume.affine[:3, :3].T
    upright = np.cross(rows, columns)
    thick = np.pad(region.each / abs(float(np.dot(slices, upright))), 1)  # in steps
    faces = [np.count_nonzero(np.diff(padded.view(np.int8), axis=axis), axis=(1, 2)) for axis in range(3)]
    areas = (np.linalg.norm(np.cross(one, other)) for one, other in ((slices, columns), (slices, rows)))
    sides = sum(float(found @ thick) * float(area) for found, area in zip(faces[1:], areas, strict=True))
    return 0.25 * ball, (faces[0].sum() * float(np.linalg.norm(upright)) + sides) * 1.05


def voxel_volumes(evidence: Evidence) -> NDArray[np.float64]:
    """(slices,): mm3 of one voxel of each slice, the triple product of the three index steps.

    Of an uneven stack a slice reaches half of the way to its neighbours, by the places that the images themselves say.
    """
    volume = evidence.volume
    slices, rows, columns = volume.affine[:3, :3].T
    if not volume.places:
        return np.full(len(volume.voxels), abs(float(np.dot(slices, np.cross(rows, columns)))))
    places = [np.array(header.ImagePositionPatient, float) for header in volume.headers if header is not None]
    area = np.cross(rows, columns)
    depths = np.abs((np.array(places) - places[0]) @ (area / np.linalg.norm(area)))
    edges = [1.5 * depths[0] - 0.5 * depths[1], *(depths[1:] + depths[:-1]) / 2, 1.5 * depths[-1] - 0.5 * depths[-2]]
    found: NDArray[np.float64] = np.diff(edges) * np.linalg.norm(area)
    return found


def _close(one: float, other: float, relative: float = 1e-6) -> bool:
    return math.isclose(one, other, rel_tol=relative, abs_tol=1e-9)
