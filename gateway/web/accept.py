"""Which of the media types that we can give a client likes best (RFC 9110 12.5.1, PS3.18 8.3.3.1, 8.7). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - a token of RFC 9110
_PARAMETER = re.compile(rf'\s*;\s*({_TOKEN})\s*=\s*("(?:[^"\\]|\\.)*"|[^;,"]*)')
_RANGE = re.compile(rf"\s*({_TOKEN}/{_TOKEN})")
_LONGEST = 4096  # characters of a header that are looked at


@dataclass(frozen=True, kw_only=True)
class MediaRange:
    """One member of an Accept header."""

    kind: str  # `application/dicom`, `image/*`, lower case
    parameters: dict[str, str] = field(default_factory=dict)  # names in lower case, without q
    quality: float = 1.0

    @property
    def part(self) -> str:
        """Media type of the parts, where a multipart message is wanted."""
        return self.parameters.get("type", "*/*").lower()

    @property
    def transfer_syntax(self) -> str:
        """Wanted transfer syntax; empty for the default, `*` for any."""
        return self.parameters.get("transfer-syntax", "")

    def covers(self, kind: str) -> bool:
        """Whether a media type without parameters is in this range."""
        return _covers(self.kind, kind)

    def covers_part(self, kind: str) -> bool:
        """Whether this asks for a multipart message with such parts."""
        return _covers(self.kind, "multipart/related") and (self.kind == "*/*" or _covers(self.part, kind))


def parse_media_type(text: str) -> MediaRange:
    """A media type or range with its parameters; raises ValueError."""
    found = _parse_at(text, 0)
    if found is None or text[found[1] :].strip():
        raise ValueError("not a media type")
    return found[0]


def parse_accept(text: str | None) -> list[MediaRange]:
    """An Accept header, best first; what cannot be read is left out, and nothing at all means anything."""
    if text is None or not text.strip():
        return [MediaRange(kind="*/*")]
    ranges, at, text = [], 0, text[:_LONGEST]
    while at < len(text):
        found = _parse_at(text, at)
        if found is not None:
            ranges.append(found[0])
            at = found[1]
        comma = text.find(",", at)
        at = len(text) if comma < 0 else comma + 1
    return sorted((one for one in ranges if one.quality > 0), key=lambda one: -one.quality)


def asked(lines: Sequence[str], query: Mapping[str, str]) -> list[MediaRange]:
    """What a request accepts: a query parameter goes before the lines of the header field, which pages cannot always set."""
    return parse_accept(query.get("accept") or ", ".join(lines))


def chosen(accept: Sequence[MediaRange], offers: Sequence[str]) -> str | None:
    """The offered media type (without parameters) that is liked best."""
    return next((offer for wanted in accept for offer in offers if wanted.covers(offer)), None)


def _parse_at(text: str, at: int) -> tuple[MediaRange, int] | None:
    kind = _RANGE.match(text, at)
    if not kind:
        return None
    parameters, at = {}, kind.end()
    while found := _PARAMETER.match(text, at):
        value = found[2].strip()
        parameters[found[1].lower()] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        at = found.end()
    quality = _quality(parameters.pop("q", "1"))
    return MediaRange(kind=kind[1].lower(), parameters=parameters, quality=quality), at


def _quality(text: str) -> float:
    return min(float(text), 1.0) if re.fullmatch(r"[0-9](\.[0-9]{0,3})?", text) else 0.0


def _covers(wanted: str, offered: str) -> bool:
    return wanted in ("*/*", offered) or (wanted.endswith("/*") and offered.startswith(wanted[:-1]))
