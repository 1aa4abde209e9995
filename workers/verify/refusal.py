"""The gate for a refusal: it names the right patient and images, says why, and holds no number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from gateway.bundle.manifest import Manifest
from gateway.domain import refusals
from gateway.domain.messages import Code, JobOrder, ResultObject
from workers.load.volume import Volume
from workers.verify import documents, identity, references, report
from workers.verify.evidence import Evidence, Result, code_of, read

_EVALUATIONS = ("C0034375", "UMLS")


def verify_refusal(
    objects: tuple[ResultObject, ...],
    headers: tuple[Dataset, ...],
    codes: tuple[Code, ...],
    manifest: Manifest,
    order: JobOrder,
) -> None:
    """Judges every form of the report against the images' headers and the reason's codes; raises GateRefused."""
    evidence = _evidence(headers, manifest, order)
    for result in [read(described, Path(order.output_dir)) for described in objects]:
        identity.check_patient_and_study(result, evidence)
        identity.check_character_set(result, evidence)
        identity.check_own_uids(result, evidence)
        identity.check_algorithm(result, evidence)
        documents.check_no_patient_text(result, evidence)
        references.check_references(result, evidence, {})
        references.check_evidence(result, evidence, {})
        report.check_document(result, evidence)
        check_reason(result, codes)


def check_reason(result: Result, codes: tuple[Code, ...]) -> None:
    """The summary "Not Attempted", then exactly these reasons; no measurement."""
    if report.groups(result):
        raise result.refuse("numbers", "it has measurement groups, though nothing was measured")
    said = [
        (code_of(item, "ConceptNameCodeSequence"), code_of(item, "ConceptCodeSequence"))
        for container in report.children(result.dataset, _EVALUATIONS)
        for item in container.get("ContentSequence") or ()
        if item.get("ValueType") == "CODE"
    ]
    wanted = [(refusals.SUMMARY, refusals.NOT_ATTEMPTED), *((refusals.REASON, code) for code in codes)]
    if said != [tuple((code.value, code.scheme) for code in pair) for pair in wanted]:
        raise result.refuse("reason", "it does not say in codes why the images were not processed")


def _evidence(headers: tuple[Dataset, ...], manifest: Manifest, order: JobOrder) -> Evidence:
    """The images as far as a refusal knows them: headers, and no voxel that anybody could look at."""
    nothing = np.zeros((len(headers), 1, 1), np.float32)
    return Evidence(
        volume=Volume(voxels=nothing, affine=np.eye(4), headers=headers),
        labels=nothing.astype(np.uint8),
        measurements=(),
        manifest=manifest,
        order=order,
    )
