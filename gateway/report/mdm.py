"""MDM with the report as a document, for an EHR that files documents only (HL7 v2.5.1 chapter 9). Pure.

T02 for the first edition, T10 for one that replaces it, T11 for a cancellation.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.domain.job import ReportKind
from gateway.hl7.er7 import coded, instant, join, segment, text
from gateway.report.check import Expected, validated
from gateway.report.content import ReportContent, expressible
from gateway.report.observations import document
from gateway.report.quirks import with_quirks
from gateway.report.segments import filler, msh, obr, orc, pid, placer, pv1, study_time, zone
from gateway.report.settings import CHARSETS, Hl7Destination

_EVENTS = {
    ReportKind.PRELIMINARY: "T02",
    ReportKind.FINAL: "T10",
    ReportKind.CORRECTED: "T10",
    ReportKind.CANCELLED: "T11",
    ReportKind.REFUSED: "T02",
}
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
    # What is reported again without having been confirmed is still the original document to its reader.
    first = content.edition.number <= 1 and content.kind is not ReportKind.CANCELLED
    return "T02" if first else _EVENTS[content.kind]


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
    number, sender = content.edition.number, text(profile.sending_application)
    verified = content.edition.verified or content.kind is ReportKind.FINAL
    embedded = bool(content.pdf) and profile.document_form == "ED"
    by = content.edition.by
    fields = {
        1: "1",
        2: coded(*_TYPE) if profile.at_least("2.8") else _TYPE[0],
        3: "AP" if embedded else "TX",
        4: study_time(content),
        6: instant(content.edition.at, zone(profile)),
        12: join("^", _document_id(content, number if event != "T11" else number - 1), sender),
        13: join("^", _document_id(content, number - 1), sender) if event == "T10" else "",
        14: placer(content),
        15: filler(content, profile),
        16: f"{content.filler_number}.pdf" if embedded else "",
        17: "AU" if verified else "DO",
        19: "CA" if event == "T11" else "AV",
        22: f"^{text(by)}" if by else "",
    }
    return segment("TXA", fields)


def _document_id(content: ReportContent, number: int) -> str:
    return f"{content.filler_number}.{number}"
