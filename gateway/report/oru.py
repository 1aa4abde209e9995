"""ORU^R01 about the result of a job (HL7 v2.5.1 chapter 7). Pure: ids and times are given, the same give the same bytes.

Field by field in docs/hl7.md. OBR-25 and OBX-11 say what edition of the report it is: preliminary until a person has
confirmed the result.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Self
from zoneinfo import ZoneInfo

from gateway.domain.context import Subject
from gateway.domain.errors import MessageInvalid
from gateway.domain.ids import digest
from gateway.domain.job import Edition, Job, ReportKind
from gateway.domain.messages import MeasurementResult, Outcome, SegmentResult
from gateway.domain.roles import TITLES
from gateway.domain.study import Header
from gateway.hl7.er7 import coded, date, instant, join, moment, number, person, segment, text
from gateway.report import subject as named
from gateway.report.check import validated
from gateway.report.settings import CHARSETS, Hl7Destination

STATUS = {
    ReportKind.PRELIMINARY: "P",
    ReportKind.FINAL: "F",
    ReportKind.CORRECTED: "C",
    ReportKind.CANCELLED: "X",
}
"""HL7 table 0123 (OBR-25), and 0085 (OBX-11)."""
_DELETED = "D"  # OBX-11: what was reported there is not any more
_SECTIONS = {"CT": "CT", "MR": "NMR", "NM": "NMS", "PT": "NMS", "US": "RUS"}  # modality -> HL7 table 0074
_STUDY = coded("113014", "DICOM Study", "DCM")
_SERVICE = ("18748-4", "Diagnostic imaging study", "LN")
_NARRATIVE = coded("59776-5", "Procedure findings", "LN")
_REMARK = coded("48767-8", "Annotation comment", "LN")
_ALTERED = (
    "Some characters cannot be written in the character set of this message: they are missing, or a question mark."
)
_CONFIDENCE = {"high": "AI-HIGH", "moderate": "AI-MODERATE", "low": "AI-LOW"}
"""OBX-8, in codes that nobody can take for `H` and `L` of HL7 table 0078: above and below normal."""
_NOTICES = {
    ReportKind.PRELIMINARY: "AI result, preliminary, not verified by a person.",
    ReportKind.FINAL: "AI result, confirmed by a person.",
    ReportKind.CORRECTED: "AI result, corrected: it replaces what was reported before.",
    ReportKind.CANCELLED: "AI result cancelled: what was reported before does not hold.",
}


@dataclass(frozen=True, kw_only=True)
class OruContent:
    """What a message says."""

    outcome: Outcome
    source: Header  # of any image of the source series: patient and study
    control_id: str  # MSH-10
    message_time: float  # MSH-7, seconds since the epoch
    result_time: float  # OBR-22; a result that replaces another must have a later one
    kind: ReportKind = ReportKind.PRELIMINARY
    by: str = ""  # who confirmed the result
    reason: str = ""  # of a correction or cancellation
    verified: bool = False  # whether a person has confirmed this or an earlier edition
    intended_use: str = ""
    subject: Subject | None = None  # what the EHR says of patient and order

    @classmethod
    def from_outcome(
        cls,
        outcome: Outcome,
        source: Header,
        *,
        control_id: str,
        message_time: float,
        result_time: float,
        intended_use: str = "",
    ) -> Self:
        """About an outcome; raises MessageInvalid for one without a result."""
        if outcome.status != "complete":
            raise MessageInvalid(f"job {outcome.job_id} has no result to report")
        return cls(
            outcome=outcome,
            source=source,
            control_id=control_id,
            message_time=message_time,
            result_time=result_time,
            intended_use=intended_use,
        )

    @classmethod
    def of(
        cls,
        job: Job,
        source: Header,
        edition: Edition,
        control_id: str,
        intended_use: str = "",
        subject: Subject | None = None,
    ) -> Self:
        """An edition about a job that is done. Raises MessageInvalid without a result."""
        if job.outcome is None:
            raise MessageInvalid(f"job {job.id} has no result to report")
        content = cls.from_outcome(
            job.outcome,
            source,
            control_id=control_id,
            message_time=edition.at,
            result_time=edition.at,
            intended_use=intended_use,
        )
        return replace(
            content,
            kind=edition.kind,
            by=edition.by,
            reason=edition.reason,
            verified=edition.verified,
            subject=subject,
        )

    def named(self, source: Header) -> Subject:
        """Whom and what it names: the images' patient and accession number where the EHR has told nothing."""
        own = Subject(patient=source.patient, accession_number=source.accession_number)
        return replace(self.subject, patient=source.patient) if self.subject else own

    @property
    def filler_number(self) -> str:
        """OBR-3, the same for every version of a result, so that a later one replaces the earlier at the receiver.

        Never the accession number: a receiver that replaces by OBR-3 would put this over the radiologist's report.
        """
        outcome = self.outcome
        return digest("filler", self.source.study_uid, outcome.source_series_uid, outcome.model.name)[:20].upper()


def build(content: OruContent, profile: Hl7Destination) -> bytes:
    """The message in the character set of the destination, each segment ended by CR; raises MessageInvalid.

    Characters that the set cannot express become `?`, and a remark says so. A name group that it cannot express at
    all is left out where another can be. Ids are never altered: they are refused.
    """
    codec = CHARSETS[profile.charset]
    source = _expressible(content.source, codec, named.written(content.named(content.source)))
    lines = list(_segments(content, source, profile, altered=False))
    if not _can_write("".join(lines), codec) or source.patient != content.source.patient:
        lines = list(_segments(content, source, profile, altered=True))
    written = [line.encode(codec, "replace").decode(codec) for line in lines]
    return validated(written, len(content.outcome.measurements)).encode(codec)


def _segments(content: OruContent, source: Header, profile: Hl7Destination, *, altered: bool) -> Iterator[str]:
    zone = ZoneInfo(profile.time_zone) if profile.time_zone else None
    result_time = instant(content.result_time, zone)
    yield _msh(content, profile, instant(content.message_time, zone))
    subject = content.named(source)
    yield _pid(subject)
    yield from named.visit(subject)
    filler = join("^", content.filler_number, text(profile.sending_application))
    yield segment("ORC", {1: "RE", 3: filler, **named.order_fields(subject)})
    study_time = moment(source.study_date, source.study_time)
    yield segment("OBR", _obr(content, source, filler, study_time, result_time) | named.request_fields(subject))
    model = content.outcome.model
    build_name = f"{model.name} {model.version}"
    common = {
        11: STATUS[content.kind],
        14: study_time,
        17: coded(model.name, build_name, "99HILUM"),
        18: "^".join(
            (text(f"{build_name} {model.digest[:12]}"), text(model.manufacturer), text(model.device_uid), "ISO")
        ),
        19: result_time,
    }
    remarks = (_ALTERED,) if altered else ()
    for position, observation in enumerate(_observations(content, source, remarks), start=1):
        yield segment("OBX", {1: str(position), **common, **observation})


def _msh(content: OruContent, profile: Hl7Destination, time: str) -> str:
    fields = {
        2: "^~\\&",
        3: text(profile.sending_application),
        4: text(profile.sending_facility),
        5: text(profile.receiving_application),
        6: text(profile.receiving_facility),
        7: time,
        9: "ORU^R01^ORU_R01",
        10: text(content.control_id),
        11: profile.processing_id,
        12: profile.version,
        18: profile.charset,
    }
    return segment("MSH", fields)


def _pid(subject: Subject) -> str:
    patient = subject.patient
    fields = {
        1: "1",
        3: named.identifiers(subject),
        5: person(patient.name),
        7: date(patient.birth_date),
        8: patient.sex.strip() if patient.sex.strip() in ("M", "F", "O") else "",
    }
    return segment("PID", fields)


def _obr(content: OruContent, source: Header, filler: str, study_time: str, result_time: str) -> dict[int, str]:
    description = source.study_description.strip()
    return {
        1: "1",
        3: filler,
        4: coded(*_SERVICE, *(("", description, "L") if description else ())),
        7: study_time,
        22: result_time,
        24: _SECTIONS.get(source.modality, "RAD"),
        25: STATUS[content.kind],
        32: f"&{text(content.by)}" if content.by else "",  # principal result interpreter: NDL, its CNN's family name
    }


def _observations(content: OruContent, source: Header, remarks: tuple[str, ...]) -> Iterator[dict[int, str]]:
    found = _result(content, source)
    if content.kind is ReportKind.CANCELLED:
        # For receivers that update observation by observation: each that was there is deleted. Its value does not go again.
        found = (one if one[2] in ("ST", "TX") else {**one, 5: "", 11: _DELETED} for one in found)
    yield from found
    for sentence in _narrative(content):
        yield {2: "TX", 3: _NARRATIVE, 5: text(sentence)}
    flags = () if content.kind is ReportKind.CANCELLED else content.outcome.flags
    for sentence in (*flags, *remarks):
        yield {2: "TX", 3: _REMARK, 5: text(sentence)}


def _result(content: OruContent, source: Header) -> Iterator[dict[int, str]]:
    outcome = content.outcome
    labels = {item.number: item.label for item in outcome.segments}
    yield {2: "ST", 3: _STUDY, 5: text(source.study_uid)}
    for measurement in outcome.measurements:
        yield _numeric(measurement, labels.get(measurement.segment or 0, ""))
    for reference in outcome.objects:
        yield _reference(reference.role, reference.sop_class_uid, reference.sop_instance_uid)


def _numeric(measurement: MeasurementResult, label: str) -> dict[int, str]:
    name, unit = measurement.name, measurement.unit
    alternate = ("", f"{name.meaning} of {label}", "99HILUM") if label else ()
    try:
        value = number(measurement.value)
    except ValueError:
        raise MessageInvalid(f"{name.meaning} is not a finite number") from None
    return {
        2: "NM",
        3: coded(name.value, name.meaning, name.scheme, *alternate),
        4: "" if measurement.segment is None else str(measurement.segment),
        5: value,
        6: coded(unit.value, unit.meaning, unit.scheme),
        8: _CONFIDENCE.get(measurement.confidence, ""),
    }


def _reference(role: str, sop_class: str, sop_instance: str) -> dict[int, str]:
    """A result object by its UIDs: RP (2.A.65) with the SOP instance as pointer and its class as type of data."""
    title = TITLES.get(role, f"DICOM {role}")
    return {
        2: "RP",
        3: coded(role.upper(), title, "99HILUM"),
        5: f"{text(sop_instance)}^{text(sop_class)}&&DCM^AP^DICOM",
    }


def _narrative(content: OruContent) -> Iterator[str]:
    model = content.outcome.model
    labels = {item.number: item.label for item in content.outcome.segments}
    yield f"{_NOTICES[content.kind]} Made by {model.name} {model.version} ({model.manufacturer})."
    if content.by:
        yield f"Confirmed by {content.by}"
    if content.kind is ReportKind.CORRECTED and not content.verified:
        yield "Not verified by a person."
    if content.reason:
        yield f"Reason: {content.reason}"
    if content.kind is ReportKind.CANCELLED:
        return
    if content.intended_use:
        yield f"Intended use: {content.intended_use}"
    for measurement in content.outcome.measurements:
        label = labels.get(measurement.segment or 0, "")
        what = f"{measurement.name.meaning} of {label}" if label else measurement.name.meaning
        yield f"{what}: {number(measurement.value)} {measurement.unit.value}"
    yield from (f"{item.label}: nothing found" for item in content.outcome.segments if _is_empty(item))


def _is_empty(item: SegmentResult) -> bool:
    return item.voxels == 0


def _expressible(source: Header, codec: str, told: Iterable[tuple[str, str]]) -> Header:
    """The source as the character set can carry it; raises MessageInvalid for an id that it cannot express."""
    for what, value in (
        ("patient id", source.patient.patient_id + source.patient.issuer),
        *told,
    ):
        if not _can_write(value, codec):
            raise MessageInvalid(f"the {what} cannot be written in the character set of the destination")
        if re.search(r"[\x00-\x1f\x7f]", value):
            raise MessageInvalid(f"the {what} holds a control character")
    groups = source.patient.name.split("=")
    kept = [group if _can_write(group, codec) else "" for group in groups]
    if kept == groups or not any(kept):
        return source
    name = "=".join(kept).rstrip("=")
    return replace(source, patient=replace(source.patient, name=name))


def _can_write(value: str, codec: str) -> bool:
    try:
        value.encode(codec)
    except UnicodeEncodeError:
        return False
    return True
