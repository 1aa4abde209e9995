"""What a report about a job says, whatever form it takes: HL7 v2 or FHIR. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self
from urllib.parse import quote

from gateway.domain import refusals
from gateway.domain.context import Subject
from gateway.domain.errors import MessageInvalid
from gateway.domain.ids import digest
from gateway.domain.job import Edition, Job, ReportKind
from gateway.domain.messages import MeasurementResult, Outcome, SegmentResult
from gateway.domain.study import Header
from gateway.hl7.er7 import number
from gateway.report.codes import quantity_name
from gateway.report.subject import written

_NOTICES = {
    ReportKind.PRELIMINARY: "AI result, preliminary, not verified by a person.",
    ReportKind.FINAL: "AI result, confirmed by a person.",
    ReportKind.CORRECTED: "AI result, corrected: it replaces what was reported before.",
    ReportKind.CANCELLED: "AI result cancelled: what was reported before does not hold.",
    ReportKind.REFUSED: "There is no AI result: the images were not processed.",
}


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """One edition of the report about a job."""

    outcome: Outcome
    source: Header  # of any image of the source series: patient and study
    control_id: str  # MSH-10
    edition: Edition
    intended_use: str = ""
    subject: Subject | None = None  # whom and what to name, where the EHR has told of it
    pdf: bytes = b""  # the report as a document, where the result set has one
    supersedes: bool = False  # whether the result takes the place of an earlier one
    replaced: tuple[Outcome, ...] = ()  # the earlier ones in whose place it is

    def __post_init__(self) -> None:
        """Raises MessageInvalid for a job without a result, but for the report that says why there is none."""
        if self.outcome.status != ("refused" if self.kind is ReportKind.REFUSED else "complete"):
            raise MessageInvalid(f"job {self.outcome.job_id} has no result to report")

    @classmethod
    def of(cls, job: Job, source: Header, edition: Edition, control_id: str, intended_use: str = "") -> Self:
        """About a job that is done; raises MessageInvalid without a result."""
        if job.outcome is None:
            raise MessageInvalid(f"job {job.id} has no result to report")
        return cls(
            outcome=job.outcome,
            source=source,
            edition=edition,
            control_id=control_id,
            intended_use=intended_use,
            supersedes=job.supersedes is not None,
        )

    @property
    def kind(self) -> ReportKind:
        """What edition it is."""
        return self.edition.kind

    @property
    def replaces(self) -> bool:
        """Whether there may be an earlier edition at the receiver that this one replaces."""
        return self.edition.number > 1 or self.supersedes or self.edition.follows

    @property
    def named(self) -> Subject:
        """Whom and what it names: the images' patient and accession number where the EHR has told nothing."""
        source = self.source
        own = Subject(patient=source.patient, accession_number=source.accession_number)
        return replace(self.subject, patient=source.patient) if self.subject else own

    @property
    def filler_number(self) -> str:
        """OBR-3, the same for every version of a result, so that a later one replaces the earlier at the receiver.

        Never the accession number: a receiver that replaces by OBR-3 would put this over the radiologist's report.
        """
        outcome = self.outcome
        return digest("filler", self.source.study_uid, outcome.source_series_uid, outcome.model.name)[:20].upper()

    @property
    def patient_key(self) -> str:
        """Whom it is about, as a digest."""
        patient = self.source.patient
        return digest("patient", patient.patient_id.strip(), patient.issuer.strip())

    def values(self, status: str) -> dict[str, str]:
        """What the templates of a profile may name; nothing here is escaped."""
        model, named = self.outcome.model, self.named
        placer = named.placer_number[0].id if named.placer_number else ""
        return {
            "control_id": self.control_id,
            "job_id": self.outcome.job_id,
            "study_uid": self.source.study_uid,
            "series_uid": self.outcome.source_series_uid,
            "patient_id": self.source.patient.patient_id,
            "accession_number": named.accession_number,
            "study_description": self.source.study_description,
            "modality": self.source.modality,
            "filler_number": self.filler_number,
            "placer_number": placer,
            "model": model.name,
            "model_version": model.version,
            "device_uid": model.device_uid,
            "status": status,
        }


TEMPLATE_NAMES = frozenset(
    ("control_id", "job_id", "study_uid", "series_uid", "patient_id", "accession_number", "study_description", "modality",
     "filler_number", "placer_number", "model", "model_version", "device_uid", "status")
)  # fmt: skip


def viewer_link(content: ReportContent, template: str) -> str:
    """A URL with its placeholders filled in, percent-encoded; empty for no template."""
    values = content.values("")
    return re.sub(r"\{(\w+)\}", lambda found: quote(values[found[1]], safe=""), template)


def narrative(content: ReportContent) -> Iterator[str]:
    """The report in sentences."""
    outcome, edition, model = content.outcome, content.edition, content.outcome.model
    if edition.kind is ReportKind.REFUSED:
        yield f"{_NOTICES[edition.kind]} Asked was {model.name} {model.version} ({model.manufacturer})."
        yield refusals.sentence(outcome.reason)
        return
    yield f"{_NOTICES[edition.kind]} Made by {model.name} {model.version} ({model.manufacturer})."
    if edition.by:
        yield f"Confirmed by {edition.by}"
    if edition.kind is ReportKind.CORRECTED and not edition.verified:
        yield "Not verified by a person."
    if edition.reason:
        yield f"Reason: {edition.reason}"
    if edition.kind is ReportKind.CANCELLED:
        return
    if content.intended_use:
        yield f"Intended use: {content.intended_use}"
    for measurement in outcome.measurements:
        yield f"{title(measurement, outcome)}: {number(measurement.value)} {measurement.unit.value}{_doubt(measurement)}"
    yield from (f"{item.label}: nothing found" for item in outcome.segments if is_empty(item))


def _doubt(item: MeasurementResult) -> str:
    """What is said beside a number: present or absent, of one image alone, and how sure a model is that was asked again."""
    verdict = "".join(f" ({code.meaning.lower()})" for code in item.verdict)
    verdict += " (of all images the one with most)" if item.sop_instance_uid else ""
    between = (
        ""
        if item.low is None or item.high is None
        else f" ({number(item.low)} to {number(item.high)} in 90 % of samples)"
    )
    return f"{verdict}{between}, confidence {item.confidence}" if item.confidence else f"{verdict}{between}"


def title(measurement: MeasurementResult, outcome: Outcome) -> str:
    """`Volume of Brain`, `Long Axis of Lesion 2`."""
    label = next((item.label for item in outcome.findings if item.number == measurement.finding), "")
    if measurement.segment is not None:
        label = next((item.label for item in outcome.segments if item.number == measurement.segment), "")
    name = quantity_name(measurement)
    return f"{name} of {label}" if label else name


def is_empty(item: SegmentResult) -> bool:
    """Whether nothing was found."""
    return item.voxels == 0


def expressible(content: ReportContent, codec: str) -> ReportContent:
    """The content as a character set can carry it; raises MessageInvalid for an id that it cannot express."""
    source = content.source
    own = ("patient id", source.patient.patient_id + source.patient.issuer)
    for what, value in (own, *written(content.named)):
        if not can_write(value, codec):
            raise MessageInvalid(f"the {what} cannot be written in the character set of the destination")
        if re.search(r"[\x00-\x1f\x7f]", value):
            raise MessageInvalid(f"the {what} holds a control character")
    groups = source.patient.name.split("=")
    kept = [group if can_write(group, codec) else "" for group in groups]
    if kept == groups or not any(kept):
        return content
    patient = replace(source.patient, name="=".join(kept).rstrip("="))
    return replace(content, source=replace(source, patient=patient))


def can_write(value: str, codec: str) -> bool:
    """Whether a character set has every character."""
    try:
        value.encode(codec)
    except UnicodeEncodeError:
        return False
    return True
