"""What a site's receiver wants otherwise: fields by template, and Z segments. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from gateway.hl7.er7 import text
from gateway.report.content import ReportContent
from gateway.report.settings import Hl7Destination


def with_quirks(lines: Iterable[str], content: ReportContent, profile: Hl7Destination) -> Iterator[str]:
    """The segments with the profile's fields in place, and its Z segments behind them."""
    values = content.values(profile.status_of(content.kind))
    for line in lines:
        name = line[:3]
        mine = {int(place[4:]): value for place, value in profile.fields.items() if place[:3] == name}
        yield _with_fields(line, {field: _filled(value, values) for field, value in mine.items()}) if mine else line
    yield from (_filled(template, values) for template in profile.z_segments)


def _with_fields(line: str, fields: dict[int, str]) -> str:
    parts = line.split("|")
    first = 1 if parts[0] == "MSH" else 0  # MSH-1 is the separator itself
    for number, value in fields.items():
        parts += [""] * (number - first + 1 - len(parts))
        parts[number - first] = value
    return "|".join(parts)


def _filled(template: str, values: dict[str, str]) -> str:
    """A template with its placeholders filled in, each escaped; the rest is HL7 as the site has written it."""
    return re.sub(r"\{(\w+)\}", lambda found: text(values[found[1]]), template)
