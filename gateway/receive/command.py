"""DIMSE command sets (PS3.7 annex E): always implicit VR little endian, read and written in place."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from gateway.domain.errors import UpperLayerError
from gateway.receive.pdu import INVALID_PARAMETER

RESPONSE = 0x8000  # this bit of the Command Field makes a response
C_CANCEL = 0x0FFF
_NO_DATASET, _DATASET = 0x0101, 0x0001
_COMMENT_LENGTH = 64

_GROUP_LENGTH = 0x0000
_AFFECTED_CLASS, _REQUESTED_CLASS = 0x0002, 0x0003
_COMMAND_FIELD, _MESSAGE_ID, _RESPONDED_TO = 0x0100, 0x0110, 0x0120
_DATASET_TYPE, _STATUS, _ERROR_COMMENT = 0x0800, 0x0900, 0x0902
_AFFECTED_INSTANCE, _REQUESTED_INSTANCE = 0x1000, 0x1001
_EVENT_TYPE, _ACTION_TYPE = 0x1002, 0x1008
_N_EVENT_REPORT = 0x0100
_N_ACTION = 0x0130

_ELEMENT, _US = struct.Struct("<HHI"), struct.Struct("<H")


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandSet:
    """What a command set says; UIDs as they came, without padding."""

    field: int  # (0000,0100)
    message_id: int  # (0000,0110), in a response (0000,0120)
    has_dataset: bool  # (0000,0800)
    sop_class_uid: str = ""  # Affected (0000,0002) or Requested (0000,0003)
    sop_instance_uid: str = ""  # Affected (0000,1000) or Requested (0000,1001)
    type_id: int | None = None  # Event (0000,1002) or Action Type ID (0000,1008)
    status: int | None = None  # (0000,0900)


def parse(data: bytes) -> CommandSet:
    """Reads a command set; raises UpperLayerError where it cannot be answered."""
    elements = _elements(data)
    field = _number(elements, _COMMAND_FIELD)
    message_id = _number(elements, _RESPONDED_TO if field and field & RESPONSE else _MESSAGE_ID)
    dataset_type = _number(elements, _DATASET_TYPE)
    if field is None or dataset_type is None or (message_id is None and field != C_CANCEL):
        raise UpperLayerError("a command set lacks an essential element", INVALID_PARAMETER)
    return CommandSet(
        field=field,
        message_id=message_id or 0,
        has_dataset=dataset_type != _NO_DATASET,
        sop_class_uid=_text(elements, _AFFECTED_CLASS) or _text(elements, _REQUESTED_CLASS),
        sop_instance_uid=_text(elements, _AFFECTED_INSTANCE) or _text(elements, _REQUESTED_INSTANCE),
        type_id=_number(elements, _ACTION_TYPE if field == _N_ACTION else _EVENT_TYPE),
        status=_number(elements, _STATUS),
    )


def response(
    request: CommandSet, status: int, comment: str = "", *, instance: str = "", dataset: bool = False
) -> bytes:
    """The command set of the response to a request."""
    elements = [
        _element(_AFFECTED_CLASS, _uid(request.sop_class_uid)),
        _element(_COMMAND_FIELD, _US.pack(request.field | RESPONSE)),
        _element(_RESPONDED_TO, _US.pack(request.message_id)),
        _element(_DATASET_TYPE, _US.pack(_DATASET if dataset else _NO_DATASET)),
        _element(_STATUS, _US.pack(status)),
    ]
    if comment:
        elements.append(_element(_ERROR_COMMENT, _padded(comment[:_COMMENT_LENGTH].encode("ascii", "replace"), b" ")))
    if named := instance or request.sop_instance_uid:
        elements.append(_element(_AFFECTED_INSTANCE, _uid(named)))
    if request.type_id is not None:
        tag = _ACTION_TYPE if request.field == _N_ACTION else _EVENT_TYPE
        elements.append(_element(tag, _US.pack(request.type_id)))
    return _whole(elements)


def event_report(message_id: int, sop_class_uid: str, sop_instance_uid: str, type_id: int) -> bytes:
    """The command set of an N-EVENT-REPORT-RQ with a dataset (PS3.7 10.3.1)."""
    return _whole(
        [
            _element(_AFFECTED_CLASS, _uid(sop_class_uid)),
            _element(_COMMAND_FIELD, _US.pack(_N_EVENT_REPORT)),
            _element(_MESSAGE_ID, _US.pack(message_id)),
            _element(_DATASET_TYPE, _US.pack(_DATASET)),
            _element(_AFFECTED_INSTANCE, _uid(sop_instance_uid)),
            _element(_EVENT_TYPE, _US.pack(type_id)),
        ]
    )


def _elements(data: bytes) -> dict[int, bytes]:
    """Element numbers of group 0000 to values."""
    found: dict[int, bytes] = {}
    place = 0
    while place + _ELEMENT.size <= len(data):
        group, element, length = _ELEMENT.unpack_from(data, place)
        place += _ELEMENT.size
        if group != 0 or length > len(data) - place:
            raise UpperLayerError("a command set is broken", INVALID_PARAMETER)
        found[element] = data[place : place + length]
        place += length
    return found


def _number(elements: dict[int, bytes], element: int) -> int | None:
    value = elements.get(element, b"")
    return int(_US.unpack(value)[0]) if len(value) == _US.size else None


def _text(elements: dict[int, bytes], element: int) -> str:
    return elements.get(element, b"").decode("ascii", "replace").rstrip("\0 ")


def _element(element: int, value: bytes) -> bytes:
    return _ELEMENT.pack(0, element, len(value)) + value


def _uid(text: str) -> bytes:
    return _padded(text.encode("ascii", "replace"), b"\0")


def _padded(value: bytes, padding: bytes) -> bytes:
    return value + padding if len(value) % 2 else value


def _whole(elements: list[bytes]) -> bytes:
    body = b"".join(elements)
    return _element(_GROUP_LENGTH, struct.pack("<I", len(body))) + body
