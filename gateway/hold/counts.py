"""Reads what a source answers; it may be anything."""

from __future__ import annotations

from pydicom.dataset import Dataset

from gateway.domain.errors import InvalidIdentifier
from gateway.domain.ids import SeriesUID


def number(answer: Dataset, keyword: str) -> int | None:
    """A count, or None where there is none that can be read."""
    try:
        value = int(answer.get(keyword))
    # Decoded only here: a count of letters raises whatever the parser likes.
    except Exception:  # noqa: BLE001
        return None
    return value if 0 <= value < 1 << 31 else None


def series_uid(answer: Dataset) -> SeriesUID | None:
    """The Series Instance UID, or None where there is none."""
    try:
        return SeriesUID(str(answer.get("SeriesInstanceUID") or ""))
    except InvalidIdentifier:
        return None
