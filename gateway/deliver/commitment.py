"""Storage commitment as SCU (PS3.4 annex J): the peer takes responsibility for what it says it has stored, or does not.

The request is written into the ledger before it is sent. The report may come on the same association, on another one to our
DICOM node, twice, late, after a restart, or never.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pynetdicom import build_context, evt
from pynetdicom.association import Association

from gateway.deliver.commitment_report import PUSH_MODEL, PUSH_MODEL_INSTANCE, CommitmentReport, judge, read_report
from gateway.deliver.dimse import Dialer, NoAssociation
from gateway.deliver.plan import proof_due
from gateway.domain.job import Delivery, Receipt, Verdict
from gateway.domain.ports import Clock, OutboxLedger
from gateway.observe.logs import log

_REQUEST_COMMITMENT = 1  # Action Type ID
_REQUESTS = 3  # that may fail before we look for ourselves
_SUCCESS, _INVALID_ARGUMENT = 0x0000, 0x0115  # PS3.7 annex C

ReadBack = Callable[[Sequence[Delivery]], Mapping[str, Receipt]]
"""Looks at the destination for each delivery's object."""


class StorageCommitment:
    """Proves deliveries to one destination: asks for commitment, and looks for itself where no answer comes."""

    def __init__(
        self,
        dialer: Dialer,
        ledger: OutboxLedger,
        clock: Clock,
        read_back: ReadBack,
        *,
        timeout: float,
        linger: float,
    ) -> None:
        """``timeout`` is how long an answer may take, ``linger`` how long we stay on the association for it; seconds."""
        self._dialer, self._ledger, self._clock, self._read_back = dialer, ledger, clock, read_back
        self._timeout, self._linger = timeout, linger

    def __call__(self, batch: Sequence[Delivery]) -> Mapping[str, Receipt]:
        """Requests commitment for what has not been asked for, and looks for what was asked for in vain.

        A delivery without a finding waits for its report.
        """
        unanswered = [one for one in batch if one.transaction]
        refused = [one for one in batch if not one.transaction and one.checks > _REQUESTS]
        fresh = [one for one in batch if not one.transaction and one.checks <= _REQUESTS]
        return {
            **self._look(unanswered, "no storage commitment report came in time"),
            **self._look(refused, "storage commitment cannot be requested"),
            **self._request(fresh),
        }

    def _request(self, batch: Sequence[Delivery]) -> Mapping[str, Receipt]:
        if not batch:
            return {}
        transaction = f"2.25.{uuid.uuid4().int}"
        self._ledger.open_commitment(transaction, batch, self._clock.now() + self._timeout)
        reports = CommitmentReports(self._ledger, self._clock)
        answered = threading.Event()

        def on_report(event: Any) -> tuple[int, None]:
            status = reports.take(event.event_type, event.event_information)
            answered.set()
            return status, None

        handlers = [(evt.EVT_N_EVENT_REPORT, on_report)]
        try:
            with self._dialer.association([build_context(PUSH_MODEL)], handlers=handlers) as association:
                refusal = _ask(association, transaction, batch)
                if refusal is None:
                    answered.wait(self._linger)
        except NoAssociation as error:
            refusal = error.receipt
        if refusal is None:
            return {}
        if refusal.verdict is Verdict.UNSUPPORTED:
            return self._look(batch, refusal.answer)
        return {one.draft.key: refusal for one in batch}

    def _look(self, batch: Sequence[Delivery], why: str) -> Mapping[str, Receipt]:
        """Instead of the report: what is there and compares equal has arrived, what cannot be looked at is sent again."""
        findings = self._read_back(batch) if batch else {}
        return {key: _instead(finding, why) for key, finding in findings.items()}


class CommitmentReports:
    """Takes reports to the ledger, whichever association they come on."""

    def __init__(self, ledger: OutboxLedger, clock: Clock) -> None:
        self._ledger, self._clock = ledger, clock
        self._log = log(stage="deliver")

    def take(self, event_type: int | None, information: Dataset | None) -> int:
        """Acts on a report, durably, and returns the status to answer with; raises LedgerError.

        A second report about the same transaction changes nothing and is answered with success. Only a transaction that
        we have asked for, with a UID that nobody can guess, is acted on.
        """
        report = read_report(event_type, information)
        known = self._ledger.commitment(report.transaction) if report else None
        if report is None or known is None:
            self._log.warning("storage commitment report that nobody asked for")
            return _INVALID_ARGUMENT
        for delivery in known.deliveries:
            self._settle(delivery, judge(report, delivery.draft.sop_class_uid, delivery.draft.key))
        self._ledger.close_commitment(report.transaction, _summary(report))
        self._log.info(
            "storage commitment report",
            destination=known.destination,
            committed=len(report.committed),
            failed=len(report.failed),
            again=known.answered_at is not None,
        )
        return _SUCCESS

    def _settle(self, delivery: Delivery, finding: Receipt) -> None:
        if finding.verdict is Verdict.UNSUPPORTED:
            return  # stays in its transaction: when the time for the answer is over, we look for ourselves
        due = proof_due(delivery, finding, self._clock.now())
        self._ledger.settle_proof(delivery, finding, due)


def _ask(association: Association, transaction: str, batch: Sequence[Delivery]) -> Receipt | None:
    """Sends the N-ACTION; None where the peer has taken the request."""
    if not association.accepted_contexts:
        return Receipt(verdict=Verdict.UNSUPPORTED, answer="the peer offers no storage commitment")
    try:
        answer, _ = association.send_n_action(
            _information(transaction, batch), _REQUEST_COMMITMENT, PUSH_MODEL, PUSH_MODEL_INSTANCE
        )
    except (RuntimeError, ValueError, OSError):
        return Receipt(verdict=Verdict.RETRY, answer="the peer ended the association")
    code = answer.get("Status")
    if code == _SUCCESS:
        return None
    if code is None:
        # It may have the request all the same; a report of a transaction that was given up changes nothing.
        return Receipt(verdict=Verdict.RETRY, answer="no answer to the storage commitment request")
    text = f"storage commitment request refused with 0x{code:04X}"
    permanent = code in (0x0118, 0x0122, 0x0123, 0x0124, 0x0211)
    return Receipt(verdict=Verdict.UNSUPPORTED if permanent else Verdict.RETRY, answer=text)


def _information(transaction: str, batch: Sequence[Delivery]) -> Dataset:
    information = Dataset()
    information.TransactionUID = transaction
    information.ReferencedSOPSequence = Items([_reference(one) for one in batch])
    return information


def _reference(delivery: Delivery) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = delivery.draft.sop_class_uid
    item.ReferencedSOPInstanceUID = delivery.draft.key
    return item


def _instead(finding: Receipt, why: str) -> Receipt:
    if finding.verdict is Verdict.UNSUPPORTED:
        return Receipt(verdict=Verdict.MISSING, answer=f"{why}, and {finding.answer}")
    return Receipt(verdict=finding.verdict, answer=f"{why}; {finding.answer}")


def _summary(report: CommitmentReport) -> str:
    return f"{len(report.committed)} committed, {len(report.failed)} not"
