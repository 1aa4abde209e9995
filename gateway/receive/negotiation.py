"""What an association may carry: presentation contexts, roles and the rest of an A-ASSOCIATE (PS3.7 annex D, PS3.8 9.3).

The PDUs are pynetdicom's; what is agreed is decided here.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, sop_class
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext

from gateway.domain.errors import UpperLayerError
from gateway.receive.admission import APPLICATION_CONTEXT
from gateway.receive.pdu import INVALID_PARAMETER

_ITEMS_AT = 74  # where the items of an A-ASSOCIATE-RQ begin (PS3.8 table 9-11)
_ITEM = struct.Struct(">BBH")
_USER_INFORMATION = 0x50
_ITEMS, _SUB_ITEMS = frozenset({0x10, 0x20, _USER_INFORMATION}), frozenset(range(0x51, 0x5A))

_UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
_ACCEPTANCE, _USER_REJECTION, _NO_SUCH_CLASS, _NO_SUCH_SYNTAX = 0, 1, 3, 4  # PS3.8 table 9-18


@dataclass(frozen=True, kw_only=True)
class Context:
    """An accepted presentation context."""

    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, kw_only=True)
class AssociateRequest:
    """What a peer asks for."""

    calling: str  # AE titles as they came, maybe none at all
    called: str
    protocol_version: int
    application_context: str
    primitive: Any  # pynetdicom's A_ASSOCIATE


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What was agreed."""

    contexts: Mapping[int, Context]  # accepted ones by their id
    largest: int  # bytes of a PDU that the peer takes; 0: any
    answer: bytes  # the A-ASSOCIATE-AC


def decode(pdu: bytes) -> AssociateRequest:
    """Reads an A-ASSOCIATE-RQ; raises UpperLayerError."""
    try:
        request = A_ASSOCIATE_RQ()
        request.decode(pdu[:_ITEMS_AT] + _recognized(pdu[_ITEMS_AT:], _ITEMS))
        primitive = request.to_primitive()
        return AssociateRequest(
            calling=primitive.calling_ae_title or "",
            called=primitive.called_ae_title or "",
            protocol_version=request.protocol_version,
            application_context=str(primitive.application_context_name or ""),
            primitive=primitive,
        )
    # The decoder meets hostile bytes here and has no error of its own.
    except Exception as error:
        raise UpperLayerError("the A-ASSOCIATE-RQ cannot be read", INVALID_PARAMETER) from error


def _recognized(items: bytes, kinds: Collection[int]) -> bytes:
    """Items without those of an unrecognized type, which are to be ignored (PS3.8 9.3.1); the decoder knows no others."""
    found, at = [], 0
    while at + _ITEM.size <= len(items):
        kind, reserved, size = _ITEM.unpack_from(items, at)
        value, at = items[at + _ITEM.size : at + _ITEM.size + size], at + _ITEM.size + size
        if kind not in kinds and at <= len(items):
            continue
        if kind == _USER_INFORMATION and len(value) == size:
            value = _recognized(value, _SUB_ITEMS)
            size = len(value)
        found.append(_ITEM.pack(kind, reserved, size) + value)
    return b"".join(found) + items[at:]


def agree(request: AssociateRequest, services: Collection[str], largest: int) -> Agreement:
    """Accepts every storage class in the transfer syntax the peer likes best, and our services uncompressed.

    Private classes, and those newer than the dictionary, count as storage. ``largest`` is the PDU we take, in bytes.
    Raises UpperLayerError where the request cannot be answered.
    """
    try:
        return _agree(request.primitive, services, largest)
    # As above: what the decoder let through may still be none of the things it can encode.
    except Exception as error:
        raise UpperLayerError("the A-ASSOCIATE-RQ cannot be answered", INVALID_PARAMETER) from error


def _agree(asked: Any, services: Collection[str], largest: int) -> Agreement:
    items = list(asked.user_information)
    roles = {str(i.sop_class_uid): i for i in items if isinstance(i, SCP_SCU_RoleSelectionNegotiation)}
    results = [_judge(context, services, roles) for context in asked.presentation_context_definition_list]
    accepted = {
        item.context_id or 0: Context(
            abstract_syntax=str(item.abstract_syntax), transfer_syntax=str(item.transfer_syntax[0])
        )
        for item in results
        if item.result == _ACCEPTANCE
    }
    named = {context.abstract_syntax for context in accepted.values()}
    answer = A_ASSOCIATE()
    answer.application_context_name = APPLICATION_CONTEXT
    answer.calling_ae_title, answer.called_ae_title = asked.calling_ae_title, asked.called_ae_title
    answer.result, answer.result_source = 0, 1
    answer.presentation_context_definition_results_list = results
    answer.user_information = [
        *_who_we_are(largest),
        *_one_at_a_time(items),
        *(_roles(roles[uid], uid in services) for uid in sorted(named & roles.keys())),
    ]
    pdu = A_ASSOCIATE_AC()
    pdu.from_primitive(answer)
    sizes = [i.maximum_length_received for i in items if isinstance(i, MaximumLengthNotification)]
    return Agreement(contexts=accepted, largest=sizes[0] if sizes else 0, answer=pdu.encode())


def is_storage(uid: Any) -> bool:
    """Whether an abstract syntax is a storage class, as far as one can know (pydicom UID)."""
    return (
        uid.is_private
        or uid in sop_class._STORAGE_CLASSES.values()
        or not (uid.keyword and hasattr(sop_class, uid.keyword))
    )


def _judge(asked: Any, services: Collection[str], roles: Mapping[str, Any]) -> PresentationContext:
    answer = PresentationContext()
    answer.context_id, answer.abstract_syntax = asked.context_id, asked.abstract_syntax
    offered = list(asked.transfer_syntax)
    role = roles.get(str(asked.abstract_syntax))
    if asked.abstract_syntax in services:
        chosen = next((uid for uid in offered if uid in _UNCOMPRESSED), None)
        answer.result = _ACCEPTANCE if chosen else _NO_SUCH_SYNTAX
    else:
        chosen = offered[0] if offered else None
        answer.result = _ACCEPTANCE if is_storage(asked.abstract_syntax) else _NO_SUCH_CLASS
    stores = asked.abstract_syntax not in services
    if answer.result == _ACCEPTANCE and role is not None and stores and not role.scu_role:
        answer.result = _USER_REJECTION  # it would only be a provider, and so are we
    answer.transfer_syntax = [chosen or (offered[0] if offered else ImplicitVRLittleEndian)]
    return answer


def _roles(asked: Any, service: bool) -> SCP_SCU_RoleSelectionNegotiation:
    # PS3.7 D.3.3.4: the requestor may be what it proposed and we accept. Of storage it stays the user and we the provider;
    # of a service it may be the provider that reports to us (storage commitment, PS3.4 J.3.3).
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid = asked.sop_class_uid
    role.scu_role = bool(asked.scu_role) if service else True
    role.scp_role = bool(asked.scp_role) and service
    return role


def _who_we_are(largest: int) -> Iterable[Any]:
    size = MaximumLengthNotification()
    size.maximum_length_received = largest
    uid = ImplementationClassUIDNotification()
    uid.implementation_class_uid = PYNETDICOM_IMPLEMENTATION_UID
    name = ImplementationVersionNameNotification()
    name.implementation_version_name = "HILUM"
    return size, uid, name


def _one_at_a_time(items: Iterable[Any]) -> Iterable[Any]:
    # PS3.7 D.3.3.3: said only where it was asked. Extended negotiation is not answered, which means: not supported.
    for item in items:
        if isinstance(item, AsynchronousOperationsWindowNegotiation):
            window = AsynchronousOperationsWindowNegotiation()
            window.maximum_number_operations_invoked = window.maximum_number_operations_performed = 1
            yield window
            return
