"""The gate: a result set is right, or it does not leave.

Every rule is a function of its own that returns nothing or raises GateRefused. The files are read back as they are on
disk, with nothing of the code that wrote them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gateway.bundle.manifest import Manifest
from gateway.domain import roles
from gateway.domain.errors import GateRefused
from gateway.domain.messages import JobOrder, MeasurementResult, ResultObject
from workers.infer.output import QuantityMap
from workers.load.masks import Labels
from workers.load.places import Finding
from workers.load.volume import Volume
from workers.verify import documents, findings, geometry, identity, numbers, outlines, references, report, segments
from workers.verify.evidence import Evidence, Result, read
from workers.verify.maps import check_map

MANY = (roles.PM, roles.SC)
"""The roles that several objects may have."""


def verify(
    objects: tuple[ResultObject, ...],
    volume: Volume,
    labels: Labels,
    measurements: tuple[MeasurementResult, ...],
    manifest: Manifest,
    order: JobOrder,
    maps: tuple[QuantityMap, ...] = (),
    found: tuple[Finding, ...] = (),
    each: tuple[MeasurementResult, ...] = (),
) -> None:
    """Judges every object of a result set against the images, the model's output and the manifest.

    Raises GateRefused at the first rule that is broken; its message names the object and the rule, and no patient.
    """
    evidence = Evidence(
        volume=volume,
        labels=labels,
        measurements=measurements,
        manifest=manifest,
        order=order,
        maps=maps,
        findings=found,
        each=each,
    )
    _check_input(evidence)
    results = [read(described, Path(order.output_dir)) for described in objects]
    _check_set(results, evidence)
    for result in results:
        _check_any(result, evidence, results)
    segment_of: dict[str, int] = {}
    for segmentation in (result for result in results if result.role == roles.SEG):
        _check_segmentation(segmentation, evidence)
        segment_of = {str(item.TrackingUID): int(item.SegmentNumber) for item in segmentation.dataset.SegmentSequence}
    for result in results:
        _check_kind(result, evidence, results, segment_of)
    for result, given in zip((result for result in results if result.role == roles.PM), maps, strict=True):
        _check_frames(result, evidence)
        check_map(result, evidence, given)
    numbers.check_plausible(evidence)


def _check_set(results: Sequence[Result], evidence: Evidence) -> None:
    needed = {roles.SEG, roles.SR} if evidence.manifest.output.segments else {roles.SR}
    found = Counter(result.role for result in results)
    doubled = any(count > 1 for role, count in found.items() if role not in MANY)
    if doubled or not needed <= set(found) or found[roles.PM] != len(evidence.maps):
        raise GateRefused("result set: not one object for each role", code="result_set")
    if len({result.dataset.SOPInstanceUID for result in results}) < len(results):
        raise GateRefused("result set: two objects have the same SOP Instance UID", code="uid_reused")
    if len({(result.role, result.dataset.SeriesInstanceUID) for result in results}) > len(
        {result.dataset.SeriesInstanceUID for result in results}
    ):
        raise GateRefused("result set: objects of two kinds are in one series", code="uid_reused")


def _check_input(evidence: Evidence) -> None:
    identity.check_images_agree(evidence)
    geometry.check_stack(evidence)
    segments.check_field_of_view(evidence)
    findings.check_findings(evidence)
    numbers.check_measurements(evidence)


def _check_any(result: Result, evidence: Evidence, results: Sequence[Result]) -> None:
    identity.check_patient_and_study(result, evidence)
    identity.check_character_set(result, evidence)
    identity.check_own_uids(result, evidence)
    identity.check_algorithm(result, evidence)
    documents.check_no_patient_text(result, evidence)
    references.check_references(result, evidence, _siblings(result, results))


def _siblings(result: Result, results: Sequence[Result]) -> dict[str, str]:
    """SOP Instance UID to SOP Class UID of the other objects of the set."""
    return {
        str(other.dataset.SOPInstanceUID): str(other.dataset.SOPClassUID) for other in results if other is not result
    }


def _check_kind(result: Result, evidence: Evidence, results: Sequence[Result], segment_of: dict[str, int]) -> None:
    if result.kind in (roles.SR, roles.SR_DATA):
        _check_report(result, evidence, segment_of, results)
    elif result.role == roles.SEG_ALL_FRAMES:
        _check_segmentation(result, evidence)
    elif result.role == roles.SEG_LABELMAP:
        _check_frames(result, evidence)
        segments.check_segments(result, evidence)
        segments.check_label_map(result, evidence)
    elif result.role == roles.SC:
        documents.check_picture(result, evidence)
    elif result.role == roles.PDF:
        documents.check_document(result, evidence)
        references.check_predecessor(result, evidence)
    elif result.role == roles.KO:
        references.check_predecessor(result, evidence)
        references.check_evidence(result, evidence, _series_of(results))
        documents.check_index(result, evidence, _siblings(result, results))


def _series_of(results: Sequence[Result]) -> dict[str, str]:
    return {str(one.dataset.SOPInstanceUID): str(one.dataset.SeriesInstanceUID) for one in results}


def _check_frames(result: Result, evidence: Evidence) -> None:
    geometry.check_frame_of_reference(result, evidence)
    geometry.check_top_level_sources(result, evidence)
    geometry.check_frames(result, evidence)
    references.check_series_references(result, evidence)


def _check_segmentation(result: Result, evidence: Evidence) -> None:
    segments.check_form(result, evidence)
    segments.check_segments(result, evidence)
    _check_frames(result, evidence)
    segments.check_pixels(result, evidence)
    segments.check_overlap(result, evidence)


def _check_report(result: Result, evidence: Evidence, segment_of: dict[str, int], results: Sequence[Result]) -> None:
    report.check_document(result, evidence)
    references.check_predecessor(result, evidence)
    references.check_evidence(result, evidence, _series_of(results))
    found = report.split(result, evidence, segment_of)
    report.check_groups(result, evidence, found)
    report.check_numbers(result, evidence, found)
    if result.role in (roles.SR, roles.SR_COMPREHENSIVE):
        report.check_statements(result, evidence, found.others)
        outlines.check_outlines(result, evidence, found.segments)
        findings.check_outlines(result, evidence, found.findings)
        return
    outlined = report.outlined(found.others) if result.role == roles.SR_STRICT else []
    report.check_data(result, evidence, [group for group in found.others if group not in outlined])
    if result.role == roles.SR_STRICT:
        outlines.check_regions(result, evidence, outlined)
    findings.check_places(result, evidence, found.findings)
    for segmentation in (one for one in results if one.role == roles.SEG):
        report.check_segment_references(result, segmentation, found.segments)
