"""What a model found, one by one: boxes of a detection, and connected lesions of a segment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gateway.bundle.manifest import Manifest
from gateway.bundle.output import LesionSpec
from gateway.bundle.part import CodeValue
from gateway.domain.ids import derived_uid
from gateway.domain.messages import Code, FindingResult
from workers.encode.measure import at_least, volumes
from workers.encode.measure import lesions as parts
from workers.encode.side import side_of
from workers.load.masks import Labels, Masks
from workers.load.places import Box, Finding, Part
from workers.load.volume import Volume


@dataclass(frozen=True, kw_only=True)
class Found:
    """What is reported one by one, and a sentence about what is not."""

    findings: tuple[Finding, ...] = ()
    sentences: tuple[str, ...] = ()


def detected(boxes: Sequence[Box], volume: Volume, manifest: Manifest, job_id: str) -> Found:
    """Boxes by their score, numbered from 1. The same boxes give the same numbers and tracking UIDs."""
    settings = manifest.output.boxes
    most = len(boxes) if settings is None else settings.most
    rest = len(boxes) - most
    return Found(
        findings=tuple(_detected(n, boxes, volume, manifest, job_id) for n in range(1, min(most, len(boxes)) + 1)),
        sentences=(f"{rest} more boxes of lower score are counted, but not reported one by one.",) if rest > 0 else (),
    )


def lesions_of(labels: Labels, volume: Volume, manifest: Manifest, job_id: str) -> Found:
    """Connected parts of the segments that the manifest names, the largest first, numbered from 1 over all segments."""
    findings: list[Finding] = []
    sentences: list[str] = []
    for spec in manifest.output.lesions:
        numbered, large, small, each = _parted(Masks(labels).of(spec.segment), spec, volume)
        places = ndimage.find_objects(numbered)
        for within, part in enumerate(large[: spec.most], start=1):
            cut = Part(start=tuple(one.start for one in places[part - 1]), mask=numbered[places[part - 1]] == part)
            findings.append(_lesion(len(findings) + 1, within, cut, spec, volume, manifest, job_id))
        label = manifest.output.segments[spec.segment - 1].label
        if small:
            sentences.append(f"{label}: {small} parts smaller than {spec.smallest:g} mm3 are not counted as lesions.")
        if rest := large[spec.most :]:
            together = sum(each[part - 1] for part in rest) / 1000
            sentences.append(
                f"{label}: {len(rest)} more lesions, {together:.3g} mL together, are counted, but not reported one by one."
            )
    return Found(findings=tuple(findings), sentences=tuple(sentences))


def _parted(
    mask: NDArray[np.bool_], spec: LesionSpec, volume: Volume
) -> tuple[NDArray[np.int32], list[int], int, NDArray[np.float64]]:
    """The parts numbered; numbers of those that are lesions, the largest first; how many are too small; volumes in mm3."""
    numbered, count = parts(mask)
    each = volumes(numbered, volume)
    large = [int(n) + 1 for n in np.argsort(-each, kind="stable") if at_least(each[n], spec.smallest)]
    return numbered, large, count - len(large), each


def _lesion(
    number: int, within: int, part: Part, spec: LesionSpec, volume: Volume, manifest: Manifest, job_id: str
) -> Finding:
    segment = manifest.output.segments[spec.segment - 1]
    real, shape = _real(volume), volume.voxels.shape[1:]
    counts = [np.count_nonzero(part.on(index, (shape[0], shape[1]))) for index in real]
    best = real[int(np.argmax(counts))] if any(counts) else real[len(real) // 2]
    told = FindingResult(
        number=number,
        label=f"{segment.label} {within}",
        name=segment.type.code(),
        tracking_uid=derived_uid(job_id, "tracking", str(spec.segment), "lesion", str(within)),
        segment=spec.segment,
        site=_codes(segment.anatomic_region),
        laterality=_sides(volume, segment.anatomic_region, segment.laterality),
        sop_instance_uid=_instance(volume, best),
        frame_number=volume.frame_number(best),
    )
    return Finding(told=told, slice=best, part=part)


def _detected(number: int, boxes: Sequence[Box], volume: Volume, manifest: Manifest, job_id: str) -> Finding:
    box = boxes[number - 1]
    spec = manifest.output.findings[box.label]
    within = sum(other.label == box.label for other in boxes[:number])
    level = (np.linalg.inv(volume.affine) @ [*box.centre, 1.0])[0] if box.slice is None else volume.levels[box.slice]
    best = min(_real(volume), key=lambda slice_: abs(volume.levels[slice_] - level))
    told = FindingResult(
        number=number,
        label=f"{spec.name.meaning} {within}",
        name=spec.name.code(),
        tracking_uid=derived_uid(job_id, "tracking", "box", str(number)),
        site=_codes(spec.site),
        laterality=_sides(volume, spec.site, spec.laterality),
        sop_instance_uid=_instance(volume, best),
        frame_number=volume.frame_number(best),
    )
    return Finding(told=told, slice=best, box=box)


def _sides(volume: Volume, site: CodeValue | None, stated: CodeValue | None) -> tuple[Code, ...]:
    found = side_of(volume, site, stated)
    return () if found is None else (found,)


def _codes(code: CodeValue | None) -> tuple[Code, ...]:
    return () if code is None else (code.code(),)


def _real(volume: Volume) -> list[int]:
    return [index for index, header in enumerate(volume.headers) if header is not None]


def _instance(volume: Volume, index: int) -> str:
    header = volume.headers[index]
    assert header is not None  # noqa: S101
    return str(header.SOPInstanceUID)
