"""HL7 v2 text to segments, fields and components, taking what comes (HL7 v2.5.1 chapter 2). Pure.

Nothing here fails on bad text: what is not there is empty. Wrong line ends, unknown and missing segments, batch
envelopes, other delimiters and broken escapes are all read as far as they mean anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo

_LINES = re.compile(r"[\r\n]+")
_NAME = re.compile(r"[A-Z][A-Z0-9]{2}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
_TIME = re.compile(r"(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(?:\.(\d{1,6})\d*)?([+-]\d{4})?")
_NULL = '""'  # "delete what you know": nothing to know


@dataclass(frozen=True)
class Delimiters:
    """MSH-1 and MSH-2."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"

    @classmethod
    def of(cls, line: str) -> Delimiters:
        """Those of an MSH segment; the usual ones where it gives none."""
        if len(line) < 5:
            return cls()
        signs = line[4:8].split(line[3])[0].ljust(4, "\0")
        return cls(line[3], signs[0], signs[1], signs[2], signs[3])

    @property
    def encoding_characters(self) -> str:
        """MSH-2."""
        return self.component + self.repetition + self.escape + self.subcomponent


class Components:
    """One repetition of a field."""

    def __init__(self, raw: str, marks: Delimiters) -> None:
        self._parts, self._marks = raw.split(marks.component), marks

    def get(self, component: int = 1, subcomponent: int = 1) -> str:
        """A component's text, counted from 1; empty where there is none."""
        if component > len(self._parts):
            return ""
        parts = self._parts[component - 1].split(self._marks.subcomponent)
        return _plain(parts[subcomponent - 1], self._marks) if subcomponent <= len(parts) else ""

    def all(self) -> tuple[str, ...]:
        """Every component's text, without empty ones at the end."""
        texts = [self.get(number) for number in range(1, len(self._parts) + 1)]
        while texts and not texts[-1]:
            texts.pop()
        return tuple(texts)


class Segment:
    """One line of a message."""

    def __init__(self, line: str, marks: Delimiters) -> None:
        self.name, *self._fields = line.split(marks.field)
        self._marks = marks
        if self.name == "MSH":
            self._fields.insert(0, marks.field)  # MSH-1 is the separator itself

    @property
    def size(self) -> int:
        """How many fields it has."""
        return len(self._fields)

    def raw(self, field: int) -> str:
        """A whole field as it stands in the message."""
        return self._fields[field - 1] if 0 < field <= len(self._fields) else ""

    def repetitions(self, field: int) -> list[Components]:
        """The repetitions of a field that hold anything."""
        parts = self.raw(field).split(self._marks.repetition)
        return [Components(part, self._marks) for part in parts if part.strip() and part != _NULL]

    def get(self, field: int, component: int = 1, subcomponent: int = 1) -> str:
        """A component's text in the first repetition of a field."""
        found = self.repetitions(field)
        return found[0].get(component, subcomponent) if found else ""


class Message:
    """The segments of one message, in whatever order they came."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = tuple(segments)

    @property
    def head(self) -> Segment:
        """Its MSH."""
        return self.segments[0]

    def all(self, name: str) -> list[Segment]:
        """Every segment of a name."""
        return [segment for segment in self.segments if segment.name == name]

    def first(self, name: str) -> Segment:
        """The first segment of a name, or one without any content."""
        return next((segment for segment in self.segments if segment.name == name), Segment(name, Delimiters()))

    @property
    def type(self) -> tuple[str, str]:
        """Message code and trigger event (MSH-9): (`ADT`, `A40`); from EVN-1 where MSH-9 has only the code."""
        code, trigger = self.head.get(9, 1).upper(), self.head.get(9, 2).upper()
        if not trigger and "_" in code:
            code, trigger = code.split("_", 1)
        return code, trigger or self.first("EVN").get(1).upper()

    def time(self, zone: tzinfo | None) -> float | None:
        """When the event was recorded (EVN-2), else when the message was made (MSH-7)."""
        return moment(self.first("EVN").get(2), zone) or moment(self.head.get(7), zone)


def read_messages(text: str) -> Iterator[Message]:
    """The messages of a text: one, or those of a batch (FHS, BHS, BTS and FTS are only an envelope)."""
    segments: list[Segment] = []
    marks = Delimiters()
    for line in _LINES.split(text.lstrip("\ufeff")):
        line = line.strip(" \t")
        if line.startswith("MSH"):
            if segments:
                yield Message(segments)
            marks = Delimiters.of(line)
            segments = [Segment(line, marks)]
        elif segments and _NAME.fullmatch(line[:3]) and line[3:4] in ("", marks.field):
            segments.append(Segment(line, marks))
    if segments:
        yield Message(segments)


def moment(text: str, zone: tzinfo | None) -> float | None:
    """Seconds since the epoch of a TS or DTM (2.A.22), in a zone where it names none; None where it is no time."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None
    *parts, fraction, offset = match.groups()
    year, month, day, hour, minute, second = (int(part or low) for part, low in zip(parts, "111000", strict=True))
    try:
        here = _offset(offset) if offset else zone
        found = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=here).astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        return None
    return found + (float(f"0.{fraction}") if fraction else 0.0)


def _offset(text: str) -> tzinfo:
    minutes = int(text[1:3]) * 60 + int(text[3:5])
    return timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))


def _plain(raw: str, marks: Delimiters) -> str:
    """A value with its escapes read (2.7), without control characters and outer blanks."""
    text = _unescape(raw, marks) if marks.escape in raw else raw
    found = _CONTROL.sub(" ", text).strip()
    return "" if found == _NULL else found


def _unescape(raw: str, marks: Delimiters) -> str:
    known = {"F": marks.field, "S": marks.component, "T": marks.subcomponent, "R": marks.repetition, "E": marks.escape}
    parts = raw.split(marks.escape)
    texts = [parts[0]]
    position = 1
    while position < len(parts):
        inside, closed = parts[position], position + 1 < len(parts)
        replacement = _escaped(inside, known) if closed else None
        if replacement is None:  # no escape after all: the sign is kept as it stands
            texts.append(marks.escape + inside)
            position += 1
        else:
            texts += [replacement, parts[position + 1]]
            position += 2
    return "".join(texts)


def _escaped(inside: str, known: dict[str, str]) -> str | None:
    if inside in known:
        return known[inside]
    if inside in ("H", "N") or re.fullmatch(r"[CM][0-9A-Fa-f]{4,6}", inside):
        return ""  # highlighting, and character sets of other escapes
    if inside.startswith(".") and len(inside) <= 5:
        return " "  # formatting: a new line, an indent
    if re.fullmatch(r"X([0-9A-Fa-f]{2})+", inside):
        return bytes.fromhex(inside[1:]).decode("utf-8", "replace")
    return None
