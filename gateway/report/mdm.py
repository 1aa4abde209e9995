"""MDM with the report as a document, for an EHR that files documents only (HL7 v2.5.1 chapter 9). Pure.

T02 for the first edition, T10 for whatever takes the place of a document that the EHR has, T11 for a cancellation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gateway.domain.job import REFUSAL, ReportKind
from gateway.hl7.er7 import coded, instant, join, segment, text
from gateway.report.check import Expected, validated
from gateway.report.content import ReportContent, expressible
from gateway.report.observations import document
from gateway.report.quirks import with_quirks
from gateway.report.segments import filler, msh, obr, orc, pid, placer, pv1, study_time, zone
from gateway.report.settings import CHARSETS, Hl7Destination

_TYPE = ("DI", "Diagnostic imaging", "HL70270")


def build(content: ReportContent, profile: Hl7Destination) -> bytes:
    """The message in the character set of the destination, each segment ended by CR; raises MessageInvalid."""
    codec = CHARSETS[profile.charset]
    written = expressible(content, codec)
    lines = with_quirks(_segments(written, profile), content, profile)
    plain = [line.encode(codec, "replace").decode(codec) for line in lines]
    structure = "MDM_T01" if content.kind is ReportKind.CANCELLED else "MDM_T02"
    return validated(plain, Expected(structure, content.control_id, profile.version)).encode(codec)


def _event(content: ReportContent) -> str:
    if content.kind is ReportKind.CANCELLED:
        return "T11"
    return "T10" if _replaced(content) else "T02"


def _segments(content: ReportContent, profile: Hl7Destination) -> Iterator[str]:
    event = _event(content)
    structure = "MDM_T01" if event == "T11" else "MDM_T02"
    yield msh(content, profile, f"MDM^{event}^{structure}")
    yield segment("EVN", {1: "" if profile.at_least("2.7") else event, 2: instant(content.edition.at, zone(profile))})
    yield pid(content, profile)
    yield from pv1(content, profile, required=True)
    if profile.at_least("2.5"):
        yield orc(content, profile)
        yield obr(content, profile)
    yield _txa(content, profile, event)
    if event != "T11":
        yield from document(content, profile)


def _txa(content: ReportContent, profile: Hl7Destination, event: str) -> str:
    """TXA: each edition is a document of its own that names the one before it."""
    sender, old = text(profile.sending_application), _replaced(content)
    verified = content.edition.verified or content.kind is ReportKind.FINAL
    embedded = bool(content.pdf) and profile.document_form == "ED"
    by = content.edition.by
    fields = {
        1: "1",
        2: coded(*_TYPE) if profile.at_least("2.8") else _TYPE[0],
        3: "AP" if embedded else "TX",
        4: study_time(content),
        6: instant(content.edition.at, zone(profile)),
        12: join("^", old if event == "T11" else _document_id(content), sender),
        13: join("^", old, sender) if event == "T10" else "",
        14: placer(content),
        15: filler(content, profile),
        16: f"{content.filler_number}.pdf" if embedded else "",
        17: "AU" if verified else "DO",
        19: "CA" if event == "T11" else "AV",
        22: f"^{text(by)}" if by else "",
    }
    return segment("TXA", fields)


def _document_id(content: ReportContent) -> str:
    """Every edition is a document of its own, also over results that take the place of one another."""
    edition = content.edition
    if edition.number == REFUSAL:
        return f"{content.filler_number}.{f'{edition.earlier}.' if edition.earlier else ''}0"
    return f"{content.filler_number}.{edition.earlier + edition.number}"


def _replaced(content: ReportContent) -> str:
    """The document whose place it takes; empty for an original. That there is no result takes the place of nothing."""
    edition = content.edition
    if edition.number == REFUSAL:
        return ""
    if edition.number == 1 and edition.follows:
        return _document_id(replace(content, edition=replace(edition, number=REFUSAL)))
    before = edition.earlier + edition.number - 1
    return f"{content.filler_number}.{before}" if before else ""
