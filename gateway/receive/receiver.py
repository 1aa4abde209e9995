"""What happens to every instance, whatever carried it here: checked, durable, in the ledger, and only then acknowledged."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from gateway.domain.errors import DatasetMismatch, HilumError, StorageFull, UpperLayerError
from gateway.domain.ids import AETitle, AssociationId, InstanceUID, Sha256, Uid
from gateway.domain.ports import Clock, IntakeLedger, Spool, SpoolFile
from gateway.domain.study import Header, Instance
from gateway.observe.logs import log
from gateway.receive.ends import AssociationEnds
from gateway.receive.header import DEFLATED, Incomplete, part10_prefix, read_header
from gateway.receive.inflated import InflatedLength
from gateway.receive.settings import DicomSettings

SUCCESS = 0x0000
DUPLICATE_SOP_INSTANCE = 0x0111  # PS3.7 annex C.5.4

_BEGINNING = 64 * 1024  # bytes of a dataset that are kept in memory: nearly every header ends within them


@dataclass(frozen=True, kw_only=True)
class Sender:
    """Who is on the other side of one association or request."""

    association: AssociationId
    calling_ae: AETitle
    address: str


@dataclass(frozen=True, kw_only=True)
class StoreRequest:
    """What a C-STORE-RQ, or one part of a STOW-RS request, says before its dataset comes."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Status (PS3.4 table GG.4-1) and Error Comment (0000,0902)."""

    status: int
    comment: str = ""  # 64 characters at most


class Receiver:
    """Takes instances in. The wire (DIMSE, STOW-RS) is somebody else's business."""

    def __init__(self, spool: Spool, ledger: IntakeLedger, clock: Clock, settings: DicomSettings) -> None:
        self._spool, self._ledger, self._clock, self._settings = spool, ledger, clock, settings
        self._ends = AssociationEnds(ledger.close_association)
        self._log = log(stage="receive")

    def opened(self, calling_ae: AETitle, address: str, association: AssociationId | None = None) -> Sender:
        """An association began, or a request that counts as one; raises LedgerError."""
        association = association or AssociationId(uuid.uuid4().hex)
        sender = Sender(association=association, calling_ae=calling_ae, address=address)
        self._ledger.open_association(sender.association, calling_ae, address)
        return sender

    def closed(self, sender: Sender, how: str) -> None:
        """An association ended: `released`, `refused`, `aborted` or `lost`."""
        self._ends.record(sender.association, how)

    def begin(self, request: StoreRequest, sender: Sender) -> Reception:
        """One instance is about to come; never raises for what a peer can cause."""
        return Reception(self, request, sender)

    def open_file(self) -> SpoolFile:
        """A place for an instance; raises StorageFull where the disk is too full to take any."""
        if self._spool.room() < self._settings.refuse_all_below:
            raise StorageFull("out of disk space")
        return self._spool.begin(durable=self._settings.durability == "full")

    def keep(self, header: Header, sha256: Sha256, size: int, file: SpoolFile, sender: Sender) -> Answer:
        """Makes a whole instance durable and says what to answer; raises StorageFull and LedgerError."""
        self._make_room(header)
        key = file.seal(f"{header.sop_instance_uid} {header.transfer_syntax_uid} {sha256}")
        instance = Instance(
            header=header,
            sha256=sha256,
            size=size,
            file=key,
            calling_ae=sender.calling_ae,
            address=sender.address,
            association_id=sender.association,
            received_at=self._clock.now(),
        )
        kind = self._ledger.add_instance(instance)
        if kind == "conflict":
            self._log.warning("conflicting content quarantined", sop_instance_uid=header.sop_instance_uid)
            return Answer(status=DUPLICATE_SOP_INSTANCE, comment="stored before with other content; first copy kept")
        if kind == "duplicate":
            self._forget_second(header.sop_instance_uid, key)
        return Answer(status=SUCCESS)

    def refuse(self, sender: Sender, error: HilumError) -> Answer:
        """The answer to an instance that cannot be taken."""
        self._log.warning("instance refused", association=sender.association, reason=error.message)
        return Answer(status=error.dimse_status, comment=error.message[:64])

    @property
    def largest_instance(self) -> int:
        """Bytes of the longest dataset that is taken."""
        return self._settings.max_instance

    @property
    def largest_inflated(self) -> int:
        """Bytes of the longest deflated dataset that is taken, once it is inflated."""
        return self._settings.max_inflated

    @property
    def largest_association(self) -> int:
        """Bytes of all datasets that one association may bring."""
        return self._settings.max_association_bytes

    def _make_room(self, header: Header) -> None:
        if self._spool.room() < self._settings.refuse_new_below and not self._ledger.has_study(header.study_uid):
            raise StorageFull("low on disk space: no new studies are taken")

    def _forget_second(self, uid: InstanceUID, key: str) -> None:
        # The same dataset under another transfer syntax has another file: the one that came first is the one we name.
        known = self._ledger.instance(uid)
        if known is not None and known.file != key:
            self._spool.remove(key)


class Reception:
    """One instance on its way in: written, digested and counted piece by piece, judged when it is whole.

    What goes wrong is said when the dataset is over: a peer listens only then.
    """

    def __init__(self, receiver: Receiver, request: StoreRequest, sender: Sender) -> None:
        self._receiver, self._request, self._sender = receiver, request, sender
        self._digest, self._size, self._beginning = hashlib.sha256(), 0, bytearray()
        self._file: SpoolFile | None = None
        deflated = request.transfer_syntax_uid in DEFLATED
        self._inflated = InflatedLength(receiver.largest_inflated) if deflated else None
        self._prefix = 0  # bytes of the file before the dataset
        self._error: HilumError | None = None
        try:
            self._begin()
        except HilumError as error:
            self._give_up(error)

    @property
    def size(self) -> int:
        """Bytes of the dataset so far."""
        return self._size

    def write(self, pieces: Sequence[memoryview]) -> None:
        """The next bytes of the dataset, as sent; raises UpperLayerError where it is longer than any we take."""
        self._size += sum(map(len, pieces))
        if self._size > self._receiver.largest_instance:
            raise UpperLayerError("the dataset is longer than dicom.max_instance")
        if self._file is None:
            return
        if self._inflated is not None:
            try:
                self._inflated.add(pieces)
            except HilumError as error:
                self._give_up(error)
                return
        try:
            self._file.write(*pieces)  # first: the disk may begin while we count
        except HilumError as error:
            self._give_up(error)
            return
        for piece in pieces:
            if len(self._beginning) < _BEGINNING:
                self._beginning += piece[: _BEGINNING - len(self._beginning)]
            self._digest.update(piece)

    def finish(self) -> Answer:
        """The dataset is whole: stores it and says what to answer; never raises for what a peer can cause."""
        try:
            if self._error is not None or self._file is None:
                raise self._error or StorageFull()
            header = self._header(self._file)
            asked = Uid(self._request.sop_class_uid), Uid(self._request.sop_instance_uid)
            if (header.sop_class_uid, header.sop_instance_uid) != asked:
                raise DatasetMismatch("SOP class or instance UID of command and dataset differ")
            digest = Sha256(self._digest.hexdigest())
            return self._receiver.keep(header, digest, self._prefix + self._size, self._file, self._sender)
        except HilumError as error:
            return self._receiver.refuse(self._sender, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.discard()

    def _begin(self) -> None:
        request = self._request
        names = Uid(request.sop_class_uid), Uid(request.sop_instance_uid), Uid(request.transfer_syntax_uid)
        self._file = self._receiver.open_file()
        prefix = part10_prefix(*names)
        self._file.write(prefix)
        self._prefix = len(prefix)

    def _give_up(self, error: HilumError) -> None:
        self._error = error
        if self._file is not None:
            self._file.discard()
            self._file = None

    def _header(self, file: SpoolFile) -> Header:
        beginning, syntax = self._beginning, self._request.transfer_syntax_uid
        try:
            return read_header(beginning, syntax, whole=self._size <= _BEGINNING)
        except Incomplete:
            return read_header(file.view(self._prefix), syntax)
