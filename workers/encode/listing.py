"""Findings as people read them: a table for the report on paper, lines beside a picture."""

from __future__ import annotations

from typing import Any

from gateway.domain.codes import CERTAINTY
from gateway.domain.messages import MeasurementResult
from workers.encode.picture import colour_of
from workers.encode.source import Source
from workers.encode.words import caption, unit, value
from workers.load.places import Finding

_COLUMNS = 6  # of numbers, that a page has room for
_LISTED = 40  # rows; what is more is counted


def table(source: Source) -> dict[str, Any]:
    """Heads and rows of the findings, one each: its number and colour, what it is, where, and its numbers in common columns."""
    columns: list[tuple[str, str]] = []
    for finding in source.findings:
        for found in source.of_finding(finding.told.number):
            if _column(found) not in columns:
                columns.append(_column(found))
    columns = columns[:_COLUMNS]
    shown = source.findings[:_LISTED]
    rest = len(source.findings) - len(shown)
    return {
        "heads": [f"{name}, {of}" if of else name for name, of in columns],
        "rows": [_row(source, finding, columns) for finding in shown],
        "more": f"and {rest} more, in the structured report" if rest else "",
    }


def lines(source: Source, finding: Finding, most: int = 4) -> list[str]:
    """Its numbers, extents in one line."""
    found = source.of_finding(finding.told.number)
    if finding.box is None:
        return [f"{one.name.meaning}: {value(one)} {unit(one)}" for one in found][:most]
    certainty, *extents = found
    size = " × ".join(value(one) for one in reversed(extents))
    return [f"Certainty {value(certainty)} {unit(certainty)}", f"{size} mm"]


def _column(found: MeasurementResult) -> tuple[str, str]:
    return ("Certainty" if found.name == CERTAINTY else found.name.meaning), unit(found)


def _row(source: Source, finding: Finding, columns: list[tuple[str, str]]) -> dict[str, Any]:
    told = finding.told
    values = {_column(found): value(found) for found in source.of_finding(told.number)}
    side = " ".join(code.meaning.lower() for code in told.laterality)
    place = " ".join(part for part in (side, *(code.meaning.lower() for code in told.site)) if part)
    place = place[:1].upper() + place[1:]
    return {
        "number": str(told.number),
        "colour": "#{:02x}{:02x}{:02x}".format(*colour_of(source, finding)),
        "name": told.label,
        "where": ", ".join(part for part in (place, caption(source, finding.slice)) if part),
        "values": [values.get(column, "–") for column in columns],
    }
