"""The gate: a result set is right, or it does not leave.

Every rule is a function of its own that returns nothing or raises GateRefused. The files are read back as they are on
disk, with nothing of the code that wrote them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gateway.domain.errors import GateRefused
from gateway.domain.messages import JobOrder, MeasurementResult, ResultObject
from gateway.manifest import Manifest
from workers.load.volume import Volume
from workers.verify import geometry, identity, numbers, outlines, references, report, segments
from workers.verify.evidence import Evidence, Result, read

ALWAYS = ("seg", "sr")
"""The roles that no result set may lack."""


def verify(
    objects: tuple[ResultObject, ...],
    volume: Volume,
    labels: NDArray[np.uint8],
    measurements: tuple[MeasurementResult, ...],
    manifest: Manifest,
    order: JobOrder,
) -> None:
    """Judges every object of a result set against the images, the labels and the manifest.

    Raises GateRefused at the first rule that is broken; its message names the object and the rule, and no patient.
    """
    evidence = Evidence(volume=volume, labels=labels, measurements=measurements, manifest=manifest, order=order)
    _check_input(evidence)
    results = {described.role: read(described, Path(order.output_dir)) for described in objects}
    if len(results) != len(objects) or not set(ALWAYS) <= set(results):
        raise GateRefused("result set: not one object for each role", code="result_set")
    for result in results.values():
        _check_any(result, evidence, results)
    _check_segmentation(results["seg"], evidence)
    segment_of = {str(item.TrackingUID): int(item.SegmentNumber) for item in results["seg"].dataset.SegmentSequence}
    for role in results.keys() - {"seg"}:
        _check_report(results[role], evidence, segment_of)
    outlines.check_outlines(results["sr"], evidence, segment_of)
    if "sr-data" in results:
        report.check_segment_references(results["sr-data"], results["seg"], segment_of)
    numbers.check_plausible(evidence)


def _check_input(evidence: Evidence) -> None:
    identity.check_images_agree(evidence)
    geometry.check_stack(evidence)
    numbers.check_measurements(evidence)


def _check_any(result: Result, evidence: Evidence, results: dict[str, Result]) -> None:
    siblings = {
        str(other.dataset.SOPInstanceUID): str(other.dataset.SOPClassUID)
        for role, other in results.items()
        if role != result.role
    }
    identity.check_patient_and_study(result, evidence)
    identity.check_character_set(result, evidence)
    identity.check_own_uids(result, evidence)
    identity.check_algorithm(result, evidence)
    references.check_references(result, evidence, siblings)


def _check_segmentation(result: Result, evidence: Evidence) -> None:
    segments.check_form(result, evidence)
    segments.check_segments(result, evidence)
    geometry.check_frame_of_reference(result, evidence)
    geometry.check_top_level_sources(result, evidence)
    geometry.check_frames(result, evidence)
    references.check_series_references(result, evidence)
    segments.check_pixels(result, evidence)


def _check_report(result: Result, evidence: Evidence, segment_of: dict[str, int]) -> None:
    report.check_document(result, evidence)
    report.check_groups(result, evidence, segment_of)
    report.check_numbers(result, evidence, segment_of)
    references.check_evidence(result, evidence)
