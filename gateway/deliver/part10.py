"""Reading of a result file what a question about it needs."""

from __future__ import annotations

from pathlib import Path

from pydicom.filereader import read_partial
from pydicom.tag import BaseTag

from gateway.domain.ids import SeriesUID, StudyUID

_SERIES_INSTANCE_UID = 0x0020000E


def place(path: Path) -> tuple[StudyUID, SeriesUID]:
    """Study and series of an object; reads no further than to them. Raises OSError, InvalidDicomError, ValueError."""

    def behind(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        return int(tag) > _SERIES_INSTANCE_UID

    with path.open("rb") as file:
        head = read_partial(file, stop_when=behind)
    return StudyUID(head.get("StudyInstanceUID", "")), SeriesUID(head.get("SeriesInstanceUID", ""))
