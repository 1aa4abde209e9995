"""One association from its acceptance to its end: C-STORE straight into the spool, everything else to its service."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from io import BytesIO

from pydicom.dataset import Dataset
from pynetdicom import dsutils

from gateway.domain.errors import ConnectionLost, HilumError, InvalidIdentifier, NotDicom, UpperLayerError
from gateway.domain.ids import Uid
from gateway.receive import command, pdu
from gateway.receive.command import CommandSet
from gateway.receive.negotiation import Agreement, Context
from gateway.receive.pdu import PduType, Wire
from gateway.receive.receiver import SUCCESS, Receiver, Sender, StoreRequest
from gateway.receive.service import Command, DimsePeer, DimseRequest, DimseResponse, DimseService

_LARGEST_DATASET = 16 * 1024 * 1024  # bytes of a dataset that is no image: it is read into memory

_NO_SUCH_SOP_CLASS, _UNRECOGNIZED_OPERATION, _INVALID_OBJECT_INSTANCE = 0x0122, 0x0211, 0x0117  # PS3.7 annex C
_N_SERVICE = 0x0100  # this bit of the Command Field
_OF_N_SERVICES = {0xA700: 0x0213, 0xC000: 0x0110}  # resource limitation, processing failure


class Association:
    """Speaks with one peer in the calling thread. Implements `gateway.receive.service.DimsePeer`."""

    def __init__(
        self,
        wire: Wire,
        agreement: Agreement,
        receiver: Receiver,
        services: Mapping[str, DimseService],
        sender: Sender,
    ) -> None:
        self._wire, self._agreement, self._receiver = wire, agreement, receiver
        self._services, self._sender = services, sender
        self._received = 0  # bytes of datasets
        self._afterwards: deque[Callable[[DimsePeer], None]] = deque()
        self._refused = False  # whether an instance was not taken
        self._ended = ""  # set by the peer: `released` or `aborted`
        self._messages = 0  # that we began ourselves

    def serve(self) -> str:
        """Answers until the peer ends the association and says how it did: `released`, `refused` or `aborted`.

        `refused` was released too, but not everything that it brought was taken: it is no evidence that all is here.
        Raises UpperLayerError and ConnectionLost.
        """
        while not self._ended:
            message = self._next()
            if message is not None:
                self._answer(*message)
            while self._afterwards and not self._ended:
                self._afterwards.popleft()(self)
        return "refused" if self._ended == "released" and self._refused else self._ended

    def report_event(self, sop_class_uid: str, sop_instance_uid: str, type_id: int, dataset: Dataset) -> int | None:
        """See `DimsePeer`."""
        context = next((i for i, c in self._agreement.contexts.items() if c.abstract_syntax == sop_class_uid), None)
        if context is None or self._ended:
            return None
        self._messages += 1
        mine = self._messages
        request = command.event_report(mine, sop_class_uid, sop_instance_uid, type_id)
        self._send(context, request, dataset)
        while (message := self._next()) is not None:
            its_context, said = message
            if said.field != Command.N_EVENT_REPORT | command.RESPONSE or said.message_id != mine:
                self._answer(its_context, said)
                continue
            if said.has_dataset:
                self._read(its_context)
            return said.status
        return None

    def _next(self) -> tuple[int, CommandSet] | None:
        """The next message's command set; None when the peer has ended the association."""
        message = self._wire.command()
        if isinstance(message, tuple):
            return message[0], command.parse(message[1])
        if message is PduType.A_RELEASE_RQ:
            self._ended = "released"
            with suppress(ConnectionLost):  # a peer in a hurry; it has released all the same
                self._wire.send(pdu.RELEASE_RESPONSE)
        elif message is PduType.A_ABORT:
            self._ended = "aborted"
        else:
            raise UpperLayerError(f"{message.name} was not asked for", pdu.UNEXPECTED_PDU)
        return None

    def _answer(self, context_id: int, said: CommandSet) -> None:
        context = self._agreement.contexts.get(context_id)
        if context is None:
            raise UpperLayerError("a message in a presentation context that was not accepted", pdu.INVALID_PARAMETER)
        if said.field == command.C_CANCEL:
            return  # of an operation that is over
        if said.field & command.RESPONSE:
            raise UpperLayerError("a response that nobody waits for", pdu.INVALID_PARAMETER)
        service = self._services.get(context.abstract_syntax)
        if said.field == Command.C_STORE and service is None:
            self._store(context_id, context, said)
            return
        answer = self._ask(service, context_id, context, said)
        reply = command.response(
            said,
            answer.status,
            answer.comment,
            instance=answer.sop_instance_uid,
            dataset=answer.dataset is not None,
        )
        self._send(context_id, reply, answer.dataset)
        if answer.afterwards is not None:
            self._afterwards.append(answer.afterwards)

    def _store(self, context_id: int, context: Context, said: CommandSet) -> None:
        request = StoreRequest(
            sop_class_uid=said.sop_class_uid,
            sop_instance_uid=said.sop_instance_uid,
            transfer_syntax_uid=context.transfer_syntax,
        )
        with self._receiver.begin(request, self._sender) as reception:
            if said.has_dataset:
                self._wire.dataset(context_id, reception.write)
            self._received += reception.size
            if self._received > self._receiver.largest_association:
                raise UpperLayerError("the association has brought more than dicom.max_association_bytes")
            answer = reception.finish()
        self._refused |= answer.status != SUCCESS
        self._send(context_id, command.response(said, answer.status, answer.comment))

    def _ask(self, service: DimseService | None, context_id: int, context: Context, said: CommandSet) -> DimseResponse:
        data = self._read(context_id) if said.has_dataset else None
        if service is None:
            return DimseResponse(status=_NO_SUCH_SOP_CLASS, comment="only C-STORE is taken for this SOP class")
        try:
            request = DimseRequest(
                command=Command(said.field),
                sop_class_uid=Uid(said.sop_class_uid),
                sop_instance_uid=Uid(said.sop_instance_uid) if said.sop_instance_uid else "",
                type_id=said.type_id,
                dataset=None if data is None else _decode(data, context.transfer_syntax),
            )
        except HilumError as error:
            return _refusal(said, error)
        except ValueError:
            return DimseResponse(status=_UNRECOGNIZED_OPERATION, comment="no such operation")
        try:
            return service.answer(request, self._sender)
        except HilumError as error:
            return _refusal(said, error)

    def _read(self, context_id: int) -> bytes:
        data = bytearray()
        self._wire.dataset(context_id, pdu.collector(data, _LARGEST_DATASET))
        return bytes(data)

    def _send(self, context_id: int, said: bytes, dataset: Dataset | None = None) -> None:
        syntax = self._agreement.contexts[context_id].transfer_syntax
        data = None if dataset is None else _encode(dataset, syntax)
        self._wire.send(pdu.data_pdus(context_id, said, data, self._agreement.largest))


def _refusal(said: CommandSet, error: HilumError) -> DimseResponse:
    """The statuses of errors are those of C-STORE; N-services have others for the same (PS3.7 annex C)."""
    status = error.dimse_status
    if said.field & _N_SERVICE:
        named = isinstance(error, InvalidIdentifier)
        status = _INVALID_OBJECT_INSTANCE if named else _OF_N_SERVICES.get(status, status)
    return DimseResponse(status=status, comment=error.message)


def _decode(data: bytes, syntax: str) -> Dataset:
    uid = Uid(syntax)
    try:
        dataset = dsutils.decode(BytesIO(data), *_encoding(uid))
        dataset.decode()  # here, where a broken element has an answer
    # The parser meets hostile bytes here and has no error of its own.
    except Exception as error:
        raise NotDicom("the dataset of the request cannot be read") from error
    return dataset


def _encode(dataset: Dataset, syntax: str) -> bytes:
    data = dsutils.encode(dataset, *_encoding(syntax))
    if data is None:
        raise HilumError("the dataset of our answer cannot be encoded")
    return data


def _encoding(syntax: str) -> tuple[bool, bool]:
    """Implicit VR?, little endian? Services are negotiated uncompressed."""
    return syntax == "1.2.840.10008.1.2", syntax != "1.2.840.10008.1.2.2"
