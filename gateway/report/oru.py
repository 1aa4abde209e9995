"""ORU^R01 about the result of a job (HL7 v2.5.1 chapter 7). Pure: ids and times are given, the same give the same bytes.

Field by field in docs/hl7.md. OBR-25 and OBX-11 say what edition of the report it is: preliminary until a person has
confirmed the result.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.domain.job import ReportKind
from gateway.report.check import Expected, validated
from gateway.report.content import ReportContent, can_write, expressible
from gateway.report.observations import observations
from gateway.report.quirks import with_quirks
from gateway.report.segments import msh, obr, orc, pid, pv1
from gateway.report.settings import CHARSETS, Hl7Destination


def build(content: ReportContent, profile: Hl7Destination) -> bytes:
    """The message in the character set of the destination, each segment ended by CR; raises MessageInvalid.

    Characters that the set cannot express become `?`, and a remark says so. A name group that it cannot express at
    all is left out where another can be. Ids are never altered: they are refused.
    """
    codec = CHARSETS[profile.charset]
    written = expressible(content, codec)
    lines = list(_segments(written, profile, altered=False))
    if not can_write("".join(lines), codec) or written.source.patient != content.source.patient:
        lines = list(_segments(written, profile, altered=True))
    lines = [line.encode(codec, "replace").decode(codec) for line in lines]
    expected = Expected(
        "ORU_R01",
        content.control_id,
        profile.version,
        cancelled=content.kind is ReportKind.CANCELLED,
        measurements=len(content.outcome.measurements),
    )
    return validated(lines, expected).encode(codec)


def _segments(content: ReportContent, profile: Hl7Destination, *, altered: bool) -> Iterator[str]:
    return with_quirks(_plain_segments(content, profile, altered=altered), content, profile)


def _plain_segments(content: ReportContent, profile: Hl7Destination, *, altered: bool) -> Iterator[str]:
    yield msh(content, profile, "ORU^R01^ORU_R01")
    yield pid(content, profile)
    yield from pv1(content, profile)
    yield orc(content, profile)
    yield obr(content, profile)
    yield from observations(content, profile, altered=altered)
