"""What happens to every instance, whatever carried it here: checked, durable, in the ledger, and only then acknowledged."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass

from gateway.domain.errors import DatasetMismatch, HilumError, StorageFull
from gateway.domain.ids import AETitle, AssociationId, Sha256, Uid
from gateway.domain.ports import Clock, IntakeLedger, Spool
from gateway.domain.study import Header, Instance
from gateway.observe.logs import log
from gateway.receive.header import part10_prefix, read_header
from gateway.receive.settings import DicomSettings

SUCCESS = 0x0000
DUPLICATE_SOP_INSTANCE = 0x0111  # PS3.7 annex C.5.4


@dataclass(frozen=True, kw_only=True)
class Sender:
    """Who is on the other side of one association or request."""

    association: AssociationId
    calling_ae: AETitle
    address: str


@dataclass(frozen=True, kw_only=True)
class StoreRequest:
    """One C-STORE-RQ or one part of a STOW-RS request."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    dataset: memoryview  # as sent, no file meta information


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Status (PS3.4 table GG.4-1) and Error Comment (0000,0902)."""

    status: int
    comment: str = ""  # 64 characters at most


class Receiver:
    """Takes instances in. The wire (DIMSE, STOW-RS) is somebody else's business."""

    def __init__(self, spool: Spool, ledger: IntakeLedger, clock: Clock, settings: DicomSettings) -> None:
        self._spool, self._ledger, self._clock, self._settings = spool, ledger, clock, settings
        self._log = log(stage="receive")

    def opened(self, calling_ae: AETitle, address: str) -> Sender:
        """An association began; raises LedgerError."""
        sender = Sender(association=AssociationId(uuid.uuid4().hex), calling_ae=calling_ae, address=address)
        self._ledger.open_association(sender.association, calling_ae, address)
        return sender

    def closed(self, sender: Sender, how: str) -> None:
        """An association ended: `released`, `aborted` or `lost`."""
        try:
            self._ledger.close_association(sender.association, how)
        except HilumError as error:
            # Holding then waits for its upper limit instead of this evidence.
            self._log.error("association end not recorded", association=sender.association, error=error.message)

    def store(self, request: StoreRequest, sender: Sender) -> Answer:
        """Stores one instance and says what to answer; never raises for what a peer can cause."""
        try:
            return self._store(request, sender)
        except HilumError as error:
            self._log.warning("instance refused", association=sender.association, reason=error.message)
            return Answer(status=error.dimse_status, comment=error.message[:64])

    def _store(self, request: StoreRequest, sender: Sender) -> Answer:
        free = self._free()
        if free < self._settings.refuse_all_below:
            raise StorageFull("out of disk space")
        header = read_header(request.dataset, request.transfer_syntax_uid)
        if (header.sop_class_uid, header.sop_instance_uid) != (
            Uid(request.sop_class_uid),
            Uid(request.sop_instance_uid),
        ):
            raise DatasetMismatch("SOP class or instance UID of command and dataset differ")
        if free < self._settings.refuse_new_below and not self._ledger.has_study(header.study_uid):
            raise StorageFull("low on disk space: no new studies are taken")
        sha256 = Sha256(hashlib.sha256(request.dataset).hexdigest())
        known = self._ledger.instance(header.sop_instance_uid)
        if known and known.sha256 == sha256 and header.study_uid == known.header.study_uid:
            file, size = known.file, known.size
        else:
            file, size = self._write(header, sha256, request.dataset)
        instance = Instance(
            header=header,
            sha256=sha256,
            size=size,
            file=file,
            calling_ae=sender.calling_ae,
            address=sender.address,
            association_id=sender.association,
            received_at=self._clock.now(),
        )
        if self._ledger.add_instance(instance) == "conflict":
            self._log.warning("conflicting content quarantined", sop_instance_uid=header.sop_instance_uid)
            return Answer(status=DUPLICATE_SOP_INSTANCE, comment="stored before with other content; first copy kept")
        return Answer(status=SUCCESS)

    def _write(self, header: Header, sha256: Sha256, dataset: memoryview) -> tuple[str, int]:
        prefix = part10_prefix(header)
        file = self._spool.put(f"{header.sop_instance_uid} {sha256}", [prefix, dataset])
        return file, len(prefix) + len(dataset)

    def _free(self) -> float:
        free, total = self._spool.free()
        return free / total if total else 0.0
