"""What we answer to a request for storage commitment (PS3.4 J.3, PS3.3 C.14). Pure."""

from __future__ import annotations

from collections.abc import Mapping

from pydicom.dataset import Dataset

from gateway.domain.commitment import CommitmentRequest, Kept, Reference
from gateway.domain.errors import InvalidIdentifier
from gateway.domain.ids import InstanceUID, Uid

PROCESSING_FAILURE, NO_SUCH_OBJECT_INSTANCE = 0x0110, 0x0112  # Failure Reason (0008,1197)
CLASS_INSTANCE_CONFLICT, DUPLICATE_TRANSACTION_UID = 0x0119, 0x0131
ALL_COMMITTED, SOME_FAILED = 1, 2  # Event Type ID
_LONGEST_WAIT, _FIRST_PAUSE, _LONGEST_PAUSE = 72 * 3600.0, 5.0, 300.0  # seconds


def read_request(information: Dataset | None) -> tuple[str, tuple[Reference, ...]] | None:
    """Transaction UID and references of the Action Information; None where it is not a whole request."""
    if information is None:
        return None
    items = [item for item in information.get("ReferencedSOPSequence") or () if isinstance(item, Dataset)]
    try:
        references = [
            Reference(
                sop_class_uid=Uid(str(item.get("ReferencedSOPClassUID") or "")),
                sop_instance_uid=InstanceUID(str(item.get("ReferencedSOPInstanceUID") or "")),
            )
            for item in items
        ]
        transaction = Uid(str(information.get("TransactionUID") or ""))
    except InvalidIdentifier:
        return None
    return (transaction, tuple(dict.fromkeys(references))) if references else None


def failure(reference: Reference, kept: Kept | None, intact: bool) -> int | None:
    """Why we are not responsible for an instance, or None where we are; ``intact``: its file has the digest of the ledger."""
    if kept is None:
        return NO_SUCH_OBJECT_INSTANCE
    if kept.sop_class_uid != reference.sop_class_uid:
        return CLASS_INSTANCE_CONFLICT
    return None if intact and not kept.conflict else PROCESSING_FAILURE


def report(transaction_uid: str, failures: Mapping[Reference, int | None], ae_title: str) -> tuple[int, Dataset]:
    """Event Type ID and Event Information."""
    committed = [one for one, reason in failures.items() if reason is None]
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.RetrieveAETitle = ae_title
    if committed:
        information.ReferencedSOPSequence = [_item(one) for one in committed]
    if len(committed) == len(failures):
        return ALL_COMMITTED, information
    information.FailedSOPSequence = [_item(one, reason) for one, reason in failures.items() if reason is not None]
    return SOME_FAILED, information


def next_try(request: CommitmentRequest, now: float) -> float | None:
    """When to report again after one more failure; None where the peer has been silent for too long."""
    if now - request.requested_at > _LONGEST_WAIT:
        return None
    pause: float = _FIRST_PAUSE * 2 ** min(request.attempts, 10)
    return now + min(pause, _LONGEST_PAUSE)


def _item(one: Reference, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = one.sop_class_uid
    item.ReferencedSOPInstanceUID = one.sop_instance_uid
    if reason is not None:
        item.FailureReason = reason
    return item
