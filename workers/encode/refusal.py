"""A refusal to a structured report: that the images were not processed, and why (TID 1500, evaluations alone)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from highdicom.sr import CodeContentItem, Comprehensive3DSR, RelationshipTypeValues
from pydicom.dataset import Dataset

from gateway.domain import refusals, roles
from gateway.domain.messages import Code, ResultObject
from workers.encode.codes import concept
from workers.encode.file import finish, write
from workers.encode.report import build_report
from workers.encode.source import Origin
from workers.encode.sr_comprehensive import as_comprehensive

SERIES_NUMBER = 9009
_PART = "refusal"  # of the UIDs: the result that a later attempt may give has its own


@dataclass(frozen=True, kw_only=True)
class Refusal(Origin):
    """One job's images and why they were not processed."""

    headers: tuple[Dataset, ...]  # of the images that could be read: one patient, study and series
    reason: str
    codes: tuple[Code, ...]  # of gateway.domain.refusals

    @property
    def first(self) -> Dataset:
        """Any of the images."""
        return self.headers[0]

    @cached_property
    def evidence(self) -> tuple[Dataset, ...]:
        """All images."""
        return tuple(_reference(header) for header in self.headers)

    @property
    def remarks(self) -> tuple[str, ...]:
        """The reason, and what was known of the input before."""
        return (refusals.sentence(self.reason), *dict.fromkeys(self.order.flags))


def encode_refusal(refusal: Refusal) -> tuple[ResultObject, ...]:
    """Writes the report into the order's output directory, in each form that a destination may need."""
    forms = [roles.SR, *(role for role in (roles.SR_COMPREHENSIVE,) if role in refusal.order.extra_roles)]
    return tuple(_write(refusal, role) for role in forms)


def _write(refusal: Refusal, role: str) -> ResultObject:
    report: Dataset = _build(refusal)
    if role == roles.SR_COMPREHENSIVE:
        report = as_comprehensive(_build(refusal), refusal, f"{_PART}-comprehensive")
    finish(report, refusal)
    return write(report, role, Path(refusal.order.output_dir) / f"{_PART}-{role}.dcm")


def _build(refusal: Refusal) -> Comprehensive3DSR:
    return build_report(
        refusal,
        _PART,
        (),
        series_number=SERIES_NUMBER,
        description=f"AI {refusal.manifest.title}: not processed",
        evaluations=_evaluations(refusal.codes),
    )


def _evaluations(codes: Sequence[Code]) -> list[CodeContentItem]:
    said = [(refusals.SUMMARY, refusals.NOT_ATTEMPTED), *((refusals.REASON, code) for code in codes)]
    return [
        CodeContentItem(name=concept(name), value=concept(value), relationship_type=RelationshipTypeValues.CONTAINS)
        for name, value in said
    ]


def _reference(header: Dataset) -> Dataset:
    """Identity alone: patient and study are copied afterwards, so that no odd value of theirs is refused on the way."""
    reference = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(reference, keyword, str(header[keyword].value))
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
        setattr(reference, keyword, "")
    reference.StudyDate = reference.StudyTime = None
    reference.Modality = str(header.get("Modality") or "OT")
    return reference
