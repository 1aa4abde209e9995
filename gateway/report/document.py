"""The report of a result set as a document."""

from __future__ import annotations

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from gateway.domain.errors import MessageInvalid
from gateway.domain.messages import Outcome
from gateway.domain.ports import Spool
from gateway.domain.roles import PDF


def pdf_of(outcome: Outcome | None, spool: Spool) -> bytes:
    """The PDF inside a result set's Encapsulated PDF object (PS3.3 C.24.2); empty where there is none.

    Raises MessageInvalid where the object cannot be read.
    """
    found = next((item for item in outcome.objects if item.role == PDF), None) if outcome else None
    if found is None:
        return b""
    try:
        dataset = dcmread(spool.path(found.file))
        data = bytes(dataset.EncapsulatedDocument)
    except (InvalidDicomError, AttributeError, OSError) as error:
        raise MessageInvalid("the PDF of the result cannot be read") from error
    return data[: int(dataset.get("EncapsulatedDocumentLength", 0) or len(data))]
