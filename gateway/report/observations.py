"""The observations of a report: one OBX for each thing it says (HL7 v2.5.1 7.4.2). Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence

from gateway.domain import refusals
from gateway.domain.codes import ABSENT, PRESENT
from gateway.domain.errors import MessageInvalid
from gateway.domain.job import ReportKind
from gateway.domain.messages import Code, FindingResult, MeasurementResult, Outcome, SegmentResult
from gateway.domain.roles import PDF, TITLES
from gateway.hl7.er7 import coded, instant, number, segment, text
from gateway.report.codes import codings, quantity
from gateway.report.content import ReportContent, narrative, title, viewer_link
from gateway.report.segments import study_time, zone
from gateway.report.settings import Hl7Destination

DELETED = "D"  # OBX-11: what was reported there is not any more
_STUDY = Code(value="113014", meaning="DICOM Study", scheme="DCM")
_NARRATIVE = Code(value="59776-5", meaning="Procedure findings", scheme="LN")
_REMARK = Code(value="48767-8", meaning="Annotation comment", scheme="LN")
_DOCUMENT = Code(value="PDF", meaning="Report as PDF", scheme="99HILUM")
_LINK = Code(value="VIEWER", meaning="Link to the images", scheme="99HILUM")
_CONFIDENCE = {"high": "AI-HIGH", "moderate": "AI-MODERATE", "low": "AI-LOW"}
"""OBX-8, in codes that nobody can take for `H` and `L` of HL7 table 0078: above and below normal."""
_FLAGGED = "AI-FLAG"
_ALTERED = (
    "Some characters cannot be written in the character set of this message: they are missing, or a question mark."
)

Fields = dict[int, str]


def observations(content: ReportContent, profile: Hl7Destination, *, altered: bool) -> Iterator[str]:
    """Every OBX, numbered; `altered` adds a remark about characters that the character set lacks."""
    common = _common(content, profile)
    for position, found in enumerate(_all(content, profile, altered), start=1):
        yield segment("OBX", {1: str(position), **common, **found})


def document(content: ReportContent, profile: Hl7Destination) -> Iterator[str]:
    """The document as the only content (MDM): the PDF, or where it is not to be inside, or is not there, the narrative."""
    common = _common(content, profile)
    found = [*_document(content, profile)]
    if not content.pdf or profile.document_form != "ED":
        found += _sentences(content, profile, narrative(content))
    for position, one in enumerate(found, start=1):
        yield segment("OBX", {1: str(position), **common, **one})


def _all(content: ReportContent, profile: Hl7Destination, altered: bool) -> Iterator[Fields]:
    yield {2: "ST", 3: _code(_STUDY, profile), 5: text(content.source.study_uid)}
    for found in _result(content, profile):
        # For receivers that update observation by observation: each that was there is deleted, without its value.
        yield {**found, 5: "", 8: "", 11: DELETED} if content.kind is ReportKind.CANCELLED else found
    yield from _sentences(content, profile, narrative(content))
    flags = () if content.kind is ReportKind.CANCELLED else content.outcome.flags
    for sentence in (*flags, *((_ALTERED,) if altered else ())):
        yield {2: "TX", 3: _code(_REMARK, profile), 5: text(sentence)}


def _result(content: ReportContent, profile: Hl7Destination) -> Iterator[Fields]:
    outcome = content.outcome
    if content.kind is ReportKind.REFUSED:
        yield _answer(refusals.SUMMARY, refusals.NOT_ATTEMPTED, profile)
        yield from (_answer(refusals.REASON, code, profile) for code in outcome.refusal)
    yield from (_segment(item, profile) for item in outcome.segments)
    yield from (_finding(item, profile) for item in outcome.findings)
    for measured in outcome.measurements:
        yield _numeric(measured, outcome, profile)
        for verdict in measured.verdict:
            yield _verdict(measured, verdict, profile)
    if profile.references:
        for item in outcome.objects:
            yield _reference(item.role, item.sop_class_uid, item.sop_instance_uid, profile)
    if profile.document_form == "ED" or not profile.references:
        yield from _document(content, profile)
    if link := viewer_link(content, profile.viewer_url):
        yield {2: "RP", 3: _code(_LINK, profile), 5: f"{text(link)}^^TEXT^HTML"}


def _answer(question: Code, answer: Code, profile: Hl7Destination) -> Fields:
    """Something coded about the analysis as a whole."""
    return {2: profile.coded_type, 3: _code(question, profile), 5: _code(answer, profile)}


def _segment(item: SegmentResult, profile: Hl7Destination) -> Fields:
    """Whether a structure was found, coded; "not found" is a result too."""
    return {
        2: profile.coded_type,
        3: _code(item.type, profile, item.label),
        4: str(item.number),
        5: _code(PRESENT if item.voxels else ABSENT, profile),
    }


def _finding(item: FindingResult, profile: Hl7Destination) -> Fields:
    """One thing that was found at a place; what is measured on it has the same OBX-4."""
    return {
        2: profile.coded_type,
        3: _code(item.name, profile, item.label),
        4: item.sub_id,
        5: _code(PRESENT, profile),
    }


def _verdict(item: MeasurementResult, verdict: Code, profile: Hl7Destination) -> Fields:
    """Whether a finding is there, by the model's own threshold."""
    return {
        2: profile.coded_type,
        3: _code(item.name, profile),
        4: "presence",
        5: _code(verdict, profile),
    }


def _numeric(item: MeasurementResult, outcome: Outcome, profile: Hl7Destination) -> Fields:
    try:
        value = number(item.value)
    except ValueError:
        raise MessageInvalid(f"{item.name.meaning} is not a finite number") from None
    subs = [str(item.segment)] if item.segment is not None else []
    subs += [found.sub_id for found in outcome.findings if found.number == item.finding]
    return {
        2: "NM",
        3: _coded(quantity(item, profile.code_system), profile, title(item, outcome)),
        **({4: subs[0]} if subs else {}),
        5: value,
        6: coded(item.unit.value, item.unit.meaning, item.unit.scheme),
        8: _doubt(item, bool(outcome.flags)) if profile.quality_flags else "",
    }


def _doubt(item: MeasurementResult, flagged: bool) -> str:
    """OBX-8: how sure the model is, and whether the result has a remark about its images."""
    return "~".join(filter(None, (_CONFIDENCE.get(item.confidence, ""), _FLAGGED if flagged else "")))


def _reference(role: str, sop_class: str, sop_instance: str, profile: Hl7Destination) -> Fields:
    """A result object by its UIDs: RP (2.A.65) with the SOP instance as pointer and its class as type of data."""
    name = TITLES.get(role, f"DICOM {role}")
    return {
        2: "RP",
        3: _code(Code(value=role.upper(), meaning=name, scheme="99HILUM"), profile),
        5: f"{text(sop_instance)}^{text(sop_class)}&&DCM^AP^DICOM",
    }


def _document(content: ReportContent, profile: Hl7Destination) -> Iterator[Fields]:
    """The PDF as the site wants it: inside, by its UIDs, or not at all."""
    pdf = next((item for item in content.outcome.objects if item.role == PDF), None)
    if profile.document_form == "ED" and content.pdf:
        yield _embedded(content, profile)
    elif profile.document_form == "RP" and pdf:
        yield _reference(pdf.role, pdf.sop_class_uid, pdf.sop_instance_uid, profile)


def _embedded(content: ReportContent, profile: Hl7Destination) -> Fields:
    """The PDF itself: ED (2.A.24)."""
    data = base64.b64encode(content.pdf).decode("ascii")
    return {
        2: "ED",
        3: _code(_DOCUMENT, profile),
        5: f"{text(profile.sending_application)}^application^pdf^Base64^{data}",
    }


def _sentences(content: ReportContent, profile: Hl7Destination, sentences: Iterator[str]) -> Iterator[Fields]:
    code = _code(_NARRATIVE, profile)
    if profile.narrative == "FT":
        yield {2: "FT", 3: code, 5: "\\.br\\".join(text(sentence) for sentence in sentences)}
        return
    for sentence in sentences:
        yield {2: "TX", 3: code, 5: text(sentence)}


def _common(content: ReportContent, profile: Hl7Destination) -> Fields:
    """What every OBX says of the model: OBX-17 and, from version 2.5 on, OBX-18 and 19."""
    model = content.outcome.model
    build = f"{model.name} {model.version}"
    fields = {
        4: "" if profile.at_least("2.4") and not profile.at_least("2.7") else "1",  # required in the other versions
        11: profile.status_of(content.kind),
        14: study_time(content),
        17: coded(model.name, build, "99HILUM"),
    }
    if profile.at_least("2.5"):
        equipment = (f"{build} {model.digest[:12]}", model.manufacturer, model.device_uid, "ISO")
        fields |= {18: "^".join(text(part) for part in equipment)}
    if profile.at_least("2.5.1"):
        fields |= {19: instant(content.edition.at, zone(profile))}
    return fields


def _code(concept: Code, profile: Hl7Destination, label: str = "") -> str:
    return _coded(codings(concept, profile.code_system), profile, label)


def _coded(known: Sequence[Code], profile: Hl7Destination, label: str = "") -> str:
    """A concept in the site's code, if it has one, with ours as the alternate; else ours, with that of another system or a
    label as the alternate.

    CWE has a ninth component, the text as the sender has it.
    """
    meaning = known[-1].meaning
    mapped = next((site for code in known if (site := profile.codes.get(f"{code.scheme}|{code.value}"))), None)
    named = ("", label, "99HILUM") if label and label != meaning else ()
    ours = [(code.value, code.meaning, code.scheme) for code in known]
    first, alternate = (mapped.split("^"), ours[-1]) if mapped else (ours[0], ours[1] if len(ours) > 1 else named)
    plain = coded(*first, *alternate)
    if profile.coded_type != "CWE":
        return plain
    components = [*plain.split("^"), *[""] * 9][:8]
    return "^".join((*components, text(label or meaning)))
