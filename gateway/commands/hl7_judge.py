"""What is wrong with an HL7 v2 message, as far as it can be told without knowing what it is to say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from hl7apy import load_library
from hl7apy.exceptions import HL7apyException
from hl7apy.parser import parse_message

from gateway.hl7.head import Head, MessageUnreadable, attempt_head, decode, read_head
from gateway.hl7.segments import Message, read_messages
from gateway.report.check import grouped_result

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)")  # NM (2.A.47)
_RESULT_STATUS = ("", *"OISAPCRFXYZMN")  # table 0123, of every version; OBR-25 may be empty
_OBSERVATION_STATUS = tuple("CDFINOPRSUWXBVA")  # table 0085, of every version
_DEFAULT_VERSION = "2.5.1"
_PLAIN_RESULT = re.compile(r"MSH PID (PV1 )?ORC OBR( OBX)+")


@dataclass(frozen=True)
class Judgement:
    """What is wrong with one message; nothing where it is good."""

    control_id: str
    version: str
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()  # what could not be looked at


def judge(raw: bytes) -> Judgement:
    """MSH and character set as our own port reads them, structure as hl7apy sees it, and what that lets pass. Z segments are
    the site's affair."""
    try:
        head = read_head(raw)
        text = decode(raw, head)
    except MessageUnreadable as error:
        seen = attempt_head(raw)
        return Judgement(seen.control_id if seen else "", seen.version if seen else "", (error.message,))
    problems, notes = _structure(head, text)
    if not head.charset and not text.isascii():
        problems.append("there are characters beyond ASCII, but MSH-18 names no character set")
    for message in read_messages(text):
        problems += _content(message)
    return Judgement(head.control_id, head.version, tuple(problems), tuple(notes))


@cache
def field_names(segment: str, version: str) -> Mapping[int, str]:
    """What the fields of a segment are called, by number; nothing for a segment that the standard does not have."""
    try:
        library = load_library(version)
    except HL7apyException:
        library = load_library(_DEFAULT_VERSION)
    try:
        fields = library.get(segment, "Segment")[1]
    except HL7apyException:
        return {}
    return {int(name.split("_")[1]): reference[3].replace("_", " ").capitalize() for name, reference, *_ in fields}


def _structure(head: Head, text: str) -> tuple[list[str], list[str]]:
    """Problems and notes. hl7apy's own search for groups misplaces OBX of an ORU from version 2.8 on."""
    lines = [line for line in text.rstrip("\r").split("\r") if not line.startswith("Z")]
    newer = head.version.startswith("2.8") and (head.message_code, head.event) == ("ORU", "R01")
    plain = bool(_PLAIN_RESULT.fullmatch(" ".join(line[:3] for line in lines))) and head.version == "2.8"
    if newer and not plain:
        return [], ["structure not looked at: hl7apy cannot tell the groups of such an ORU^R01 from version 2.8 on"]
    try:
        message: Any = (
            grouped_result(lines, head.version) if newer else parse_message("\r".join(lines), find_groups=True)
        )
        message.validate()
    except HL7apyException as error:
        return [f"hl7apy: {error}"], []
    return [], []


def _content(message: Message) -> Iterator[str]:
    """What is wrong with values, as far as it can be told without knowing what the message is to say."""
    for patient in message.all("PID"):
        if not patient.get(3):
            yield "PID-3 is empty"
    is_result = message.type == ("ORU", "R01")
    for request in message.all("OBR") if is_result else ():
        if request.get(25) not in _RESULT_STATUS:
            yield f"OBR-25 {request.get(25)!r} is not of table 0123"
    for position, item in enumerate(message.all("OBX"), start=1):
        if item.raw(5) and not item.get(2):
            yield f"OBX {position}: OBX-2 is empty, so what OBX-5 holds cannot be told"
        if item.get(2) == "NM" and item.get(5) and not _NUMBER.fullmatch(item.get(5)):
            yield f"OBX {position}: OBX-2 is NM, but OBX-5 {item.get(5)[:20]!r} is not a number"
        if is_result and item.get(11) not in _OBSERVATION_STATUS:
            yield f"OBX {position}: OBX-11 {item.get(11)!r} is not of table 0085"
