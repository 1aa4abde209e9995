"""Is each finding what the labels or the model's boxes say, and does its outline lie where it was found?"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy import ndimage

from gateway.bundle.output import LesionSpec
from gateway.domain.errors import GateRefused
from workers.load.places import Box, Finding
from workers.verify.evidence import Evidence, Result
from workers.verify.numbers import voxel_volumes
from workers.verify.outlines import enclosed, outline, pixel_area, region
from workers.verify.report import is_area, numbers, value_of

_EVERYWHERE = np.ones((3, 3, 3))  # voxels that share a corner are one lesion
_ROUNDED = 1e-3  # of a box's side
_SAME_SIZE = 2e-6  # mm3 by which sums of as many voxels may differ


def check_findings(evidence: Evidence) -> None:
    """Numbered 1..N, each with a tracking UID of its own, on a real image; lesions are the largest connected parts of their
    segments, boxes lie in the images with a score from 0 to 1."""
    found = evidence.findings
    if [one.told.number for one in found] != list(range(1, len(found) + 1)):
        raise GateRefused("findings: not numbered 1..N", code="findings")
    if len({one.told.tracking_uid for one in found}) < len(found):
        raise GateRefused("findings: two have the same tracking UID", code="findings")
    for one in found:
        if one.slice not in evidence.slice_of.values():
            raise GateRefused(f"findings: {one.told.number} is to be seen on no image", code="findings")
        image = (str(evidence.header(one.slice).SOPInstanceUID), evidence.volume.frame_number(one.slice))
        if image != (one.told.sop_instance_uid, one.told.frame_number) or (one.box is None) == (one.part is None):
            raise GateRefused(f"findings: {one.told.number} names another image than its own", code="findings")
        if one.box is not None:
            _check_box(one, one.box, evidence)
    for spec in evidence.manifest.output.lesions:
        _check_lesions(spec, [one for one in found if one.told.segment == spec.segment], evidence)


def _check_lesions(spec: LesionSpec, found: list[Finding], evidence: Evidence) -> None:
    """Each of ``found`` is a connected part of its own, and none that was left out is larger; equal ones have no order."""
    numbered, _ = ndimage.label(evidence.masks.of(spec.segment), structure=_EVERYWHERE)
    voxels = np.bincount(numbered.reshape(-1))[1:]
    weights = np.broadcast_to(voxel_volumes(evidence)[:, None, None], numbered.shape)
    sizes = np.bincount(numbered.reshape(-1), weights.reshape(-1))[1:]
    large = sorted((float(size) for size in sizes if size >= spec.smallest - _SAME_SIZE), reverse=True)[: spec.most]
    if len(found) != len(large):
        raise GateRefused(f"findings: not the lesions of segment {spec.segment}", code="findings")
    seen = set()
    for size, one in zip(large, found, strict=True):
        number = _number(one, numbered)
        same = one.part is not None and np.array_equal(numbered[one.part.place] == number, one.part.mask)
        whole = same and one.part is not None and one.part.mask.sum() == voxels[number - 1]
        if not whole or number in seen or abs(float(sizes[number - 1]) - size) > _SAME_SIZE:
            raise GateRefused(f"findings: {one.told.number} is not a lesion of segment {spec.segment}", code="findings")
        seen.add(number)


def _number(finding: Finding, numbered: NDArray[np.int32]) -> int:
    """Of the connected part that a finding has voxels of."""
    if finding.part is None or not finding.part.mask.any():
        return 0
    return int(numbered[finding.part.place][finding.part.mask][0])


def _check_box(finding: Finding, box: Box, evidence: Evidence) -> None:
    specs = evidence.manifest.output.findings
    index = (np.linalg.inv(evidence.volume.affine) @ [*box.centre, 1.0])[:3]
    rows, columns = evidence.masks.shape[1:]
    inside = (index >= -0.5).all() and (index <= [evidence.volume.levels[-1] + 0.5, rows - 0.5, columns - 0.5]).all()
    known = 0 <= box.label < len(specs) and specs[box.label].name.code() == finding.told.name
    size = abs(float(np.linalg.det(box.edges)))
    if not (inside and known and 0 <= box.score <= 1 and math.isfinite(size) and size > 0):
        raise GateRefused(
            f"findings: box {finding.told.number} has no size, class or score, or lies outside of the images",
            code="box",
        )


def check_outlines(result: Result, evidence: Evidence, found: dict[int, Dataset]) -> None:
    """Every number of a finding has one closed outline on the finding's image, around just the finding there, with its area."""
    for finding in evidence.findings:
        items = numbers(found[finding.told.number])
        areas = [value_of(item) for item in items if is_area(item)]
        if len(areas) != 1 or areas[0][1] != ("mm2", "UCUM"):
            raise result.refuse("outline", f"finding {finding.told.number} does not have one area in mm2")
        for item in items:
            index, points = region(result, evidence, item)
            if index != finding.slice:
                raise result.refuse("outline", f"finding {finding.told.number} is outlined on another image")
            size = _check_around(result, evidence, finding, index, points) * pixel_area(evidence)
            if not math.isclose(areas[0][0], size, rel_tol=1e-4, abs_tol=1e-4 * pixel_area(evidence)):
                raise result.refuse("outline", f"the area of finding {finding.told.number} is not that of its outline")


def check_places(result: Result, evidence: Evidence, found: dict[int, Dataset]) -> None:
    """In a report for programs: a lesion's outlines on all of its images, or the sides of a box (SCOORD3D)."""
    for finding in evidence.findings:
        group = found[finding.told.number]
        flat = [item for item in group.get("ContentSequence") or () if item.get("ValueType") == "SCOORD"]
        seen = []
        for item in flat:
            index, points = outline(result, evidence, item)
            _check_around(result, evidence, finding, index, points)
            seen.append(index)
        solid = list(_corners(group))
        if finding.box is not None and finding.box.slice is None:
            corners = finding.box.corners
            near = [np.linalg.norm(corners - point, axis=1).min() < 0.01 for point in solid]
            covered = all(any(np.linalg.norm(corner - point) < 0.01 for point in solid) for corner in corners)
            if flat or not near or not all(near) or not covered:
                raise result.refuse("outline", f"the sides of box {finding.told.number} are not its own")
        elif solid or sorted(set(seen)) != sorted(seen) or sorted(seen) != _images(evidence, finding):
            raise result.refuse("outline", f"finding {finding.told.number} is not outlined on each of its images")


def _images(evidence: Evidence, finding: Finding) -> list[int]:
    """Slices that show a finding."""
    part, shape = finding.part, evidence.masks.shape[1:]
    if part is None:
        return [finding.slice]
    there = [index for index in sorted(evidence.slice_of.values()) if part.on(index, (shape[0], shape[1])).any()]
    return there or [finding.slice]


def _corners(group: Dataset) -> Iterator[NDArray[np.float64]]:
    for item in group.get("ContentSequence") or ():
        if item.get("ValueType") == "SCOORD3D":
            yield from np.array(item.get("GraphicData") or (), np.float64).reshape(-1, 3)


def _check_around(
    result: Result, evidence: Evidence, finding: Finding, index: int, points: NDArray[np.float64]
) -> float:
    """Pixels within an outline that fits; 0 for the frame of an image on which nothing of the finding shows."""
    rows, columns = evidence.masks.shape[1:]
    inside = enclosed(points, rows, columns)
    if finding.part is not None:
        there = finding.part.on(index, (rows, columns))
        if inside.all() and not there.any():
            return 0.0
        if not inside.any() or (inside & ~ndimage.binary_fill_holes(there)).any():
            raise result.refuse("outline", f"an outline of finding {finding.told.number} does not lie on it")
        return float(inside.sum())
    assert finding.box is not None  # noqa: S101
    least, most = _cut(finding.box, evidence, index)
    if inside.all() and not most.any():
        return 0.0
    if (least & ~inside).any() or (inside & ~most).any():
        raise result.refuse("outline", f"the outline of box {finding.told.number} is not around it")
    x, y = points.T
    return 0.5 * abs(float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])))


def _cut(box: Box, evidence: Evidence, index: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Pixels whose centres surely lie in a box, and those that may (rounding), (rows, columns).

    A box that ends before the slice is looked at where it ends, along the stack.
    """
    affine, (rows, columns) = evidence.volume.affine, evidence.masks.shape[1:]
    reached = (np.linalg.inv(affine) @ np.column_stack([box.corners, np.ones(8)]).T)[0]
    level = min(max(float(evidence.volume.levels[index]), float(reached.min())), float(reached.max()))
    down, across = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    places = affine[:3, 3] + level * affine[:3, 0] + down[..., None] * affine[:3, 1] + across[..., None] * affine[:3, 2]
    parts = (places - box.corner) @ np.linalg.inv(box.edges)
    lowest, highest = parts.min(axis=2), parts.max(axis=2)
    return (lowest > _ROUNDED) & (highest < 1 - _ROUNDED), (lowest >= -_ROUNDED) & (highest <= 1 + _ROUNDED)
