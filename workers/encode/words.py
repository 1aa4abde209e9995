"""Numbers, dates and names as people read them, for pictures and the report on paper."""

from __future__ import annotations

import math

from pydicom.dataset import Dataset

from gateway.domain.messages import MeasurementResult
from workers.encode.source import Source

_SMALL, _SMALLEST = 0.1, 1e-5
_UNITS = {  # UCUM
    "mm2": "mm²", "mm3": "mm³", "cm3": "cm³", "ml": "mL", "1": "", "[hnsf'U]": "HU", "{counts}": "", "{lesions}": "",
    "{findings}": "found",
}  # fmt: skip


def value(measured: MeasurementResult) -> str:
    """Three or four digits that mean something, more only before the point; what is small is not written as nothing."""
    if measured.unit.value.startswith("{") and measured.value == int(measured.value):
        return f"{measured.value:.0f}"  # of a count every digit means something
    size = abs(measured.value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2
    if 0 < size < _SMALL:
        return f"{measured.value:.1e}" if size < _SMALLEST else f"{measured.value:.{1 - math.floor(math.log10(size))}f}"
    return f"{measured.value:,.{digits}f}".replace(",", " ")


def unit(measured: MeasurementResult) -> str:
    """The unit as it is written, not as UCUM spells it."""
    return _UNITS.get(measured.unit.value, measured.unit.value)


def confidence(measured: MeasurementResult) -> str:
    """How sure the model is, where it knows."""
    return f", confidence {measured.confidence}" if measured.confidence else ""


def caption(source: Source, index: int) -> str:
    """Which slice it is, so that it can be found again in the viewer."""
    header = source.volume.headers[index]
    frame = source.volume.frame_number(index)
    number = text(header, "InstanceNumber") if frame is None else str(frame)
    where = f"slice {index + 1} of {len(source.volume.headers)}"
    return f"{where}, image {number}" if number else where


def date(value: str) -> str:
    """A DA value as year, month, day; anything else as it is."""
    return f"{value[:4]}-{value[4:6]}-{value[6:]}" if len(value) == 8 and value.isdigit() else value


def names(header: Dataset) -> list[str]:
    """The groups of the patient's name that are there: alphabetic, ideographic, phonetic (PS3.5 6.2.1)."""
    groups = text(header, "PatientName").split("=")
    return [name for group in groups if (name := _name(group))]


def _name(group: str) -> str:
    family, given, middle, prefix, suffix = (part.strip() for part in (*group.split("^"), *[""] * 5)[:5])
    own = " ".join(part for part in (prefix, given, middle, suffix) if part)
    if not group.isascii():  # scripts in which the comma would be strange
        return " ".join(part for part in (family, own) if part)
    return ", ".join(part for part in (family, own) if part)


def text(header: Dataset | None, keyword: str) -> str:
    """An attribute as text; empty where it is missing or cannot be read, without control characters.

    Text that is not ASCII in a dataset that declares no character set is a guess, and shown as question marks.
    """
    try:
        found = str(header.get(keyword) or "") if header is not None else ""
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError):
        return ""
    if header is not None and not header.get("SpecificCharacterSet"):
        found = found.encode("ascii", "replace").decode("ascii")
    return "".join(character if character.isprintable() else " " for character in found).strip()
