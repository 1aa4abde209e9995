"""What a storage commitment report says of each object (PS3.4 J.3.3). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydicom.dataset import Dataset

from gateway.domain.job import Receipt, Verdict

PUSH_MODEL = "1.2.840.10008.1.20.1"  # Storage Commitment Push Model SOP Class
PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"  # its well-known instance
ALL_COMMITTED, FAILURES_EXIST = 1, 2  # Event Type ID

_REASONS = {  # Failure Reason (0008,1197), PS3.3 C.14-1
    0x0110: (Verdict.MISSING, "processing failure"),
    0x0112: (Verdict.MISSING, "no such object instance"),
    0x0213: (Verdict.MISSING, "resource limitation"),
    0x0119: (Verdict.REJECTED, "class-instance conflict"),
    0x0122: (Verdict.UNSUPPORTED, "referenced SOP class not supported"),
    0x0131: (Verdict.RETRY, "duplicate transaction UID"),
}


@dataclass(frozen=True, kw_only=True)
class CommitmentReport:
    """A report, read."""

    transaction: str
    committed: Mapping[str, str]  # SOP Instance UID -> SOP Class UID
    failed: Mapping[str, int]  # SOP Instance UID -> Failure Reason


def read_report(event_type: int | None, information: Dataset | None) -> CommitmentReport | None:
    """The Event Information of an N-EVENT-REPORT; None where it is none that could be acted on."""
    if information is None or event_type not in (ALL_COMMITTED, FAILURES_EXIST):
        return None
    try:
        transaction = str(information.get("TransactionUID") or "")
        committed = {
            str(item.ReferencedSOPInstanceUID): str(item.get("ReferencedSOPClassUID", ""))
            for item in information.get("ReferencedSOPSequence") or ()
        }
        failed = {
            str(item.ReferencedSOPInstanceUID): int(item.get("FailureReason") or 0x0110)
            for item in information.get("FailedSOPSequence") or ()
        }
    except (AttributeError, TypeError, ValueError):
        return None
    if not transaction:
        return None
    return CommitmentReport(transaction=transaction, committed=committed, failed=failed)


def judge(report: CommitmentReport, sop_class: str, sop_instance: str) -> Receipt:
    """What a report means for one object of its transaction.

    Unsupported: the peer commits no objects of this class, which says nothing of whether it has it. An object that is named
    twice has failed; one that is not named at all is asked for again.
    """
    if sop_instance in report.failed:
        reason = report.failed[sop_instance]
        verdict, meaning = _REASONS.get(reason, (Verdict.MISSING, "failure"))
        return Receipt(verdict=verdict, answer=f"not committed: 0x{reason:04X} {meaning}")
    if sop_instance not in report.committed:
        return Receipt(verdict=Verdict.RETRY, answer="the storage commitment report does not name it")
    if report.committed[sop_instance] not in ("", sop_class):
        return Receipt(verdict=Verdict.REJECTED, answer="committed as an instance of another SOP class")
    return Receipt(verdict=Verdict.ACCEPTED, answer="storage commitment")
