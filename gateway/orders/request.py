"""What a study's images say of the request they were made for (PS3.3 C.7.3.1, table 10-9)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from gateway.domain.messages import Code
from gateway.domain.study import Study
from gateway.orders.linking import Images

_WANTED = [
    "AccessionNumber",
    "PlacerOrderNumberImagingServiceRequest",
    "FillerOrderNumberImagingServiceRequest",
    "RequestedProcedureCodeSequence",
    "RequestAttributesSequence",
]
_NOT_ACQUIRED = {"SR", "PR", "KO", "DOC", "SEG", "REG", "OT", "SC", "RTSTRUCT", "RTPLAN", "RTDOSE", "PLAN", ""}


@dataclass(frozen=True, kw_only=True)
class Requested:
    """The request of one instance."""

    numbers: frozenset[str] = frozenset()  # placer's and filler's
    accession_numbers: frozenset[str] = frozenset()
    procedures: tuple[Code, ...] = ()


def images_of(study: Study, files: Iterable[Path]) -> Images:
    """A study as linking sees it; ``files`` holds one instance of each series, since the request is a series' own."""
    found = [read_request(file) for file in files]
    headers = [instance.header for instance in study.instances]
    accessions = {header.accession_number.strip() for header in headers}
    return Images(
        patient=headers[0].patient,
        study_uid=study.uid,
        modalities=frozenset(study.modalities) - _NOT_ACQUIRED,
        accession_numbers=frozenset().union(accessions - {""}, *(item.accession_numbers for item in found)),
        order_numbers=frozenset().union(*(item.numbers for item in found)),
        requested=tuple(dict.fromkeys(code for item in found for code in item.procedures)),
    )


def read_request(file: Path) -> Requested:
    """The request of an instance; nothing where its header cannot be read that far."""
    # What arrived was admitted with a header that can be read; this looks further, into whatever a sender put there.
    try:
        dataset = dcmread(file, stop_before_pixels=True, specific_tags=_WANTED)
        places = [dataset, *_items(dataset, "RequestAttributesSequence")]
        return Requested(
            numbers=frozenset(_numbers(dataset)),
            accession_numbers=frozenset(filter(None, (_text(place, "AccessionNumber") for place in places))),
            procedures=tuple(code for place in places for code in _codes(place)),
        )
    except Exception:  # noqa: BLE001
        return Requested()


def _numbers(dataset: Dataset) -> Iterator[str]:
    for keyword in ("PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest"):
        if value := _text(dataset, keyword):
            yield value


def _codes(dataset: Dataset) -> Iterator[Code]:
    for item in _items(dataset, "RequestedProcedureCodeSequence"):
        yield Code(
            value=_text(item, "CodeValue"),
            scheme=_text(item, "CodingSchemeDesignator"),
            meaning=_text(item, "CodeMeaning"),
        )


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    value: Any = dataset.get(keyword)
    return list(value) if isinstance(value, Sequence) else []


def _text(dataset: Dataset, keyword: str) -> str:
    return str(dataset.get(keyword) or "").strip()[:64]
