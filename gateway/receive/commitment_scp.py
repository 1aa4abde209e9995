"""Storage commitment as SCP (PS3.4 annex J): a peer asks whether we have what it has sent, and gets a report that is true.

The request is in the ledger before it is answered. The report is said on the same association if it is still there, else on
one of ours to the peer, again and again until the peer has taken it, also after a restart.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from pydicom.dataset import Dataset

from gateway.domain.commitment import CommitmentRequest, Kept, Reference
from gateway.domain.errors import HilumError, NoAnswer, NotFound
from gateway.domain.ids import AETitle
from gateway.domain.ports import Clock, CommitmentLedger, Spool
from gateway.observe.logs import log
from gateway.receive.commitment import PUSH_MODEL, PUSH_MODEL_INSTANCE
from gateway.receive.commitment_answer import (
    DUPLICATE_TRANSACTION_UID,
    SOME_FAILED,
    failure,
    next_try,
    read_request,
    report,
)
from gateway.receive.receiver import Sender
from gateway.receive.service import Command, DimsePeer, DimseRequest, DimseResponse

_REQUEST_COMMITMENT = 1  # Action Type ID
_SUCCESS, _NO_SUCH_INSTANCE, _INVALID_ARGUMENT = 0x0000, 0x0112, 0x0115  # PS3.7 annex C
_NO_SUCH_ACTION, _UNRECOGNIZED_OPERATION = 0x0123, 0x0211
_GRACE, _GRACE_FOR_EACH = 30.0, 0.05  # seconds in which the association that has asked may take the report
_ROUND = 1.0  # seconds between two looks for reports that are due

Report = tuple[int, Dataset]
SayElsewhere = Callable[[AETitle, str, Report], int | None]
"""Says a report to a peer (AE title and address that it called from) on an association of ours, and returns the status of its
response; raises NoAnswer where there is no way to it."""


class CommitmentReporter:
    """Finds out what is true, and says it until it is heard."""

    def __init__(
        self, ledger: CommitmentLedger, spool: Spool, clock: Clock, ae_title: str, say_elsewhere: SayElsewhere
    ) -> None:
        self._ledger, self._spool, self._clock = ledger, spool, clock
        self._ae_title, self._say_elsewhere = ae_title, say_elsewhere
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="commitment reports", daemon=True)
        self._log = log(stage="receive")

    def start(self) -> None:
        """Begins to report what could not be reported before."""
        self._thread.start()

    def stop(self) -> None:
        """Reports nothing more; what is under way ends by its own limits."""
        self._stopping.set()

    def say_here(self, request: CommitmentRequest, peer: DimsePeer) -> None:
        """Reports on the association that has asked; where that ends first, it is due elsewhere at once."""
        try:
            self._say_here(request, peer)
        except HilumError as error:  # it is in the ledger, and due elsewhere when the time for this association is over
            self._log.error("commitment report not sent", transaction=request.transaction_uid, reason=error.message)

    def refuse_here(self, request: CommitmentRequest, peer: DimsePeer) -> None:
        """Reports that the Transaction UID has been used before; only here, since nothing is owed to this request."""
        refused = dict.fromkeys(request.references, DUPLICATE_TRANSACTION_UID)
        peer.report_event(PUSH_MODEL, PUSH_MODEL_INSTANCE, *report(request.transaction_uid, refused, self._ae_title))

    def _say_here(self, request: CommitmentRequest, peer: DimsePeer) -> None:
        event_type, information = self.find_out(request)
        status = peer.report_event(PUSH_MODEL, PUSH_MODEL_INSTANCE, event_type, information)
        if status == _SUCCESS:
            self._settled(request, event_type)
        else:
            how = "the association ended first" if status is None else f"refused with 0x{status:04X}"
            self._ledger.defer_commitment_request(request.transaction_uid, self._clock.now(), how)

    def find_out(self, request: CommitmentRequest) -> Report:
        """The report as it is true now: every file is read and its digest compared."""
        uids = [one.sop_instance_uid for one in request.references]
        known = self._ledger.kept(uids, request.calling_ae)
        failures = {one: self._judge(one, known) for one in request.references}
        return report(request.transaction_uid, failures, self._ae_title)

    def _judge(self, one: Reference, known: Mapping[str, Kept]) -> int | None:
        kept = known.get(one.sop_instance_uid)
        return failure(one, kept, kept is not None and self._is_intact(kept))

    def _is_intact(self, kept: Kept) -> bool:
        try:
            return dataset_digest(self._spool.path(kept.file)) == kept.sha256
        except (NotFound, OSError):
            self._log.error("a stored file is damaged or gone", file=kept.file)
            return False

    def _run(self) -> None:
        while not self._stopping.wait(_ROUND):
            try:
                for request in self._ledger.due_commitment_requests(10):
                    self._say(request)
            # The edge of a thread that must go on: whatever is wrong with one report, the others are due.
            except Exception as error:  # noqa: BLE001
                reason = error.message if isinstance(error, HilumError) else type(error).__name__
                self._log.error("commitment reports cannot be sent", reason=reason)

    def _say(self, request: CommitmentRequest) -> None:
        said = self.find_out(request)
        try:
            status = self._say_elsewhere(request.calling_ae, request.address, said)
        except NoAnswer as error:
            answer = error.message
        else:
            if status == _SUCCESS:
                self._settled(request, said[0])
                return
            answer = "no answer" if status is None else f"refused with 0x{status:04X}"
        due = next_try(request, self._clock.now())
        self._log.warning("commitment report not taken", transaction=request.transaction_uid, reason=answer)
        self._ledger.defer_commitment_request(request.transaction_uid, due, answer)

    def _settled(self, request: CommitmentRequest, event_type: int) -> None:
        verdict = "some failed" if event_type == SOME_FAILED else "all committed"
        self._ledger.settle_commitment_request(request.transaction_uid, verdict)
        self._log.info("commitment reported", transaction=request.transaction_uid, verdict=verdict)


class StorageCommitmentRequests:
    """A `DimseService`: N-ACTION of the Storage Commitment Push Model."""

    sop_classes = (PUSH_MODEL,)

    def __init__(self, ledger: CommitmentLedger, clock: Clock, reporter: CommitmentReporter) -> None:
        self._ledger, self._clock, self._reporter = ledger, clock, reporter

    def answer(self, request: DimseRequest, sender: Sender) -> DimseResponse:
        """Success once the request is in the ledger, and the report afterwards; raises LedgerError."""
        if request.command is not Command.N_ACTION:
            return DimseResponse(status=_UNRECOGNIZED_OPERATION, comment="only N-ACTION and N-EVENT-REPORT are taken")
        if request.sop_instance_uid != PUSH_MODEL_INSTANCE:
            return DimseResponse(status=_NO_SUCH_INSTANCE, comment="not the Storage Commitment Push Model instance")
        if request.type_id != _REQUEST_COMMITMENT:
            return DimseResponse(status=_NO_SUCH_ACTION, comment="the only action is 1, request storage commitment")
        read = read_request(request.dataset)
        if read is None:
            return DimseResponse(
                status=_INVALID_ARGUMENT, comment="no Transaction UID or no valid Referenced SOP Sequence"
            )
        return self._take(*read, sender)

    def _take(self, transaction: str, references: tuple[Reference, ...], sender: Sender) -> DimseResponse:
        now = self._clock.now()
        asked = CommitmentRequest(
            transaction_uid=transaction,
            calling_ae=sender.calling_ae,
            address=sender.address,
            references=references,
            requested_at=now,
        )
        if self._ledger.add_commitment_request(asked, now + _GRACE + _GRACE_FOR_EACH * len(references)):
            return DimseResponse(afterwards=lambda peer: self._reporter.say_here(asked, peer))
        return DimseResponse(afterwards=lambda peer: self._reporter.refuse_here(asked, peer))


def dataset_digest(path: Path) -> str:
    """SHA-256 of what follows the file meta information (PS3.10 7.1); raises OSError."""
    with path.open("rb") as file:
        head = file.read(144)
        # Preamble and prefix 132 bytes, then (0002,0000) UL: 8 bytes of tag, VR and length, 4 of value.
        length = int.from_bytes(head[140:144], "little") if head[128:132] == b"DICM" else 0
        file.seek(144 + length)
        return hashlib.file_digest(file, "sha256").hexdigest()
