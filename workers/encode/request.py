"""The EHR's order in a structured report: Referenced Request Sequence (PS3.3 C.17.2) and the procedure (TID 1500)."""

from __future__ import annotations

from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from gateway.domain.messages import Code, RequestedProcedure
from workers.encode.source import Origin

_SHORT, _LONG = 16, 64  # characters of SH and LO


def referenced_requests(source: Origin) -> list[Dataset] | None:
    """One item for the order; None where the EHR has told of none. What DICOM has no room for is left out."""
    return [_item(source, asked) for asked in source.order.requested] or None


def ordered_procedures(source: Origin) -> list[CodedConcept]:
    """The ordered procedure, where it is coded as DICOM can carry it."""
    codes = [code for asked in source.order.requested for code in asked.procedure]
    return [CodedConcept(code.value, code.scheme, code.meaning) for code in codes if _fits(code)]


def _item(source: Origin, asked: RequestedProcedure) -> Dataset:
    item = Dataset()
    item.StudyInstanceUID = source.first.StudyInstanceUID
    item.ReferencedStudySequence = Items()
    # The images' own accession number, byte for byte, where they have one: the archive knows them by it.
    own = str(source.first.get("AccessionNumber") or "")
    item.AccessionNumber = own or _within(asked.accession_number, _SHORT)
    item.PlacerOrderNumberImagingServiceRequest = _within(asked.placer_order_number, _LONG)
    item.FillerOrderNumberImagingServiceRequest = _within(asked.filler_order_number, _LONG)
    item.RequestedProcedureID = _within(asked.requested_procedure_id, _SHORT)
    item.RequestedProcedureDescription = "".join(_within(code.meaning, _LONG) for code in asked.procedure)
    codes = [CodedConcept(code.value, code.scheme, code.meaning) for code in asked.procedure if _fits(code)]
    item.RequestedProcedureCodeSequence = Items(codes)
    return item


def _fits(code: Code) -> bool:
    return all((_within(code.value, _SHORT), _within(code.scheme, _SHORT), _within(code.meaning, _LONG)))


def _within(text: str, most: int) -> str:
    """The text where DICOM has room for it: a number that is cut off would be another number."""
    return text if len(text) <= most and "\\" not in text else ""
