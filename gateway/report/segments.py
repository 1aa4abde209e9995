"""The segments that every message about a result has: MSH, PID, PV1, ORC, OBR (HL7 v2.5.1 chapters 2, 3 and 7). Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from zoneinfo import ZoneInfo

from gateway.hl7.er7 import coded, date, instant, join, moment, person, segment, text
from gateway.report.content import ReportContent
from gateway.report.settings import SWITCHED, Hl7Destination
from gateway.report.subject import entity, identifiers, order_fields, request_fields, visit

_SECTIONS = {"CT": "CT", "MR": "NMR", "NM": "NMS", "PT": "NMS", "US": "RUS"}  # modality -> HL7 table 0074
_MODES = {"original": ("", ""), "accept": ("AL", "NE"), "application": ("AL", "AL"), "deferred": ("AL", "AL")}


def msh(content: ReportContent, profile: Hl7Destination, message_type: str) -> str:
    """MSH; `message_type` is MSH-9."""
    accept, application = _MODES[profile.acknowledgement]
    charset, scheme = SWITCHED.get(profile.charset, (profile.charset, ""))
    fields = {
        2: "^~\\&",
        3: text(profile.sending_application),
        4: text(profile.sending_facility),
        5: text(profile.receiving_application),
        6: text(profile.receiving_facility),
        7: instant(content.edition.at, zone(profile)),
        9: message_type,
        10: text(content.control_id),
        11: profile.processing_id,
        12: profile.version,
        15: accept,
        16: application,
        18: charset,
        **({20: scheme} if scheme else {}),
    }
    return segment("MSH", fields)


def pid(content: ReportContent, profile: Hl7Destination) -> str:
    """PID: the identifiers that the EHR has told of, else that of the images; name, birth date and sex of the patient."""
    patient, named = content.source.patient, content.named
    if profile.at_least("2.7"):  # CX-5 is required from there on
        typed = tuple(replace(item, type_code=item.type_code or "PI") for item in named.identifiers)
        named = replace(named, identifiers=typed)
    fields = {
        1: "1",
        3: identifiers(named),
        5: person(patient.name),
        7: date(patient.birth_date),
        8: patient.sex.strip() if patient.sex.strip() in ("M", "F", "O") else "",
    }
    return segment("PID", fields)


def pv1(content: ReportContent, profile: Hl7Destination, *, required: bool = False) -> Iterator[str]:
    """PV1 where the EHR has told of the encounter, a template speaks of it, or the message needs it."""
    known = list(visit(content.named))
    wanted = required or any(place.startswith("PV1") for place in profile.fields)
    yield from known or ([segment("PV1", {1: "1", 2: "U"})] if wanted else [])


def orc(content: ReportContent, profile: Hl7Destination) -> str:
    """ORC: `RE`, observations to follow."""
    fields = {1: "RE", 3: filler(content, profile), **order_fields(content.named)}
    return segment("ORC", _with_accession(content, profile, "ORC", fields))


def obr(content: ReportContent, profile: Hl7Destination) -> str:
    """OBR: the procedure as ordered, the study's time, the edition's time and status."""
    by, description = content.edition.by, content.source.study_description.strip()
    ordered = request_fields(content.named)
    if not profile.service_from_order:
        ordered.pop(4, None)
    ordered.pop(18, None)  # the accession number stands where the profile wants it
    fields = {
        1: "1",
        3: filler(content, profile),
        4: coded(*profile.service.split("^"), *(("", description, "L") if description else ())),
        7: study_time(content),
        22: instant(content.edition.at, zone(profile)),
        24: _SECTIONS.get(content.source.modality, "RAD"),
        25: profile.status_of(content.kind),
        32: f"&{text(by)}" if by else "",  # principal result interpreter: NDL, its first part the family name of a CNN
    }
    return segment("OBR", _with_accession(content, profile, "OBR", fields | ordered))


def filler(content: ReportContent, profile: Hl7Destination) -> str:
    """ORC-3 and OBR-3: this result's own number, or where the site wants it the order's or the accession number."""
    named = content.named
    if profile.filler_number == "order" and named.filler_number:
        return entity(named.filler_number[0])
    if profile.filler_number == "accession" and named.accession_number:
        return text(named.accession_number)
    return join("^", content.filler_number, text(profile.sending_application))


def placer(content: ReportContent) -> str:
    """ORC-2 and OBR-2: the order's number, where the EHR has told of one."""
    return order_fields(content.named)[2]


def study_time(content: ReportContent) -> str:
    """Study date and time, local."""
    return moment(content.source.study_date, content.source.study_time)


def zone(profile: Hl7Destination) -> ZoneInfo | None:
    """The destination's time zone; None for this machine's."""
    return ZoneInfo(profile.time_zone) if profile.time_zone else None


def _with_accession(
    content: ReportContent, profile: Hl7Destination, name: str, fields: dict[int, str]
) -> dict[int, str]:
    wanted = {int(place[4:]) for place in profile.accession_fields if place.startswith(name)}
    return fields | {field: text(content.named.accession_number) for field in wanted if not fields.get(field)}
