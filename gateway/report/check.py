"""What a message must be before it leaves. Pure.

hl7apy checks the structure (segments, groups, cardinality); it lets a number that is none, a result status that is none,
and a missing unit pass, so those are checked here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hl7apy.core import Group, Message
from hl7apy.exceptions import HL7apyException

from gateway.domain.errors import MessageInvalid

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_CONTROL = re.compile(r"[\x00-\x1f]")
_LONGEST_CONTROL_ID = 20  # ST of MSH-10 in v2.5.1
_LONGEST_NUMBER = 16  # NM
_HEAD = ("MSH", "PID", "ORC", "OBR")


def validated(lines: Sequence[str], measurements: int) -> str:
    """The message of these segments, each ended by CR; raises MessageInvalid, naming the field.

    ``measurements`` is how many numbers the result has: each must be there.
    """
    _check_content([line.split("|") for line in lines], measurements)
    if any(_CONTROL.search(line) for line in lines):
        raise MessageInvalid("a segment holds a control character")
    message = _structured(lines)
    whole = "\r".join(lines)
    if str(message.to_er7()) != whole:
        raise MessageInvalid("the message does not survive being read")
    return f"{whole}\r"


def _structured(lines: Sequence[str]) -> Message:
    """The ORU_R01 of these segments as hl7apy sees it, validated."""
    try:
        message = Message("ORU_R01", version="2.5.1")
        message.msh = lines[0]
        result = message.add_group("ORU_R01_PATIENT_RESULT")
        patient = result.add_group("ORU_R01_PATIENT")
        patient.add_segment("PID").value = lines[1]
        visit = [line for line in lines if line.startswith("PV1")]
        for line in visit:
            patient.add_group("ORU_R01_VISIT").add_segment("PV1").value = line
        common, request, *rest = lines[2 + len(visit) :]
        order = result.add_group("ORU_R01_ORDER_OBSERVATION")
        order.add_segment("ORC").value = common
        order.add_segment("OBR").value = request
        for line in rest:
            _add_observation(order, line)
        message.validate()
    except HL7apyException as error:
        raise MessageInvalid(f"the message is not an ORU_R01: {type(error).__name__}") from error
    return message


def _add_observation(order: Group, line: str) -> None:
    order.add_group("ORU_R01_OBSERVATION").add_segment("OBX").value = line


def _check_content(segments: Sequence[Sequence[str]], measurements: int) -> None:
    if segments[2][0] == "PV1":  # may be there, and then here
        _require(bool(_field(segments[2], 2)), "PV1-2 is empty")
        segments = [*segments[:2], *segments[3:]]
    names = tuple(segment[0] for segment in segments)
    if names[:4] != _HEAD or set(names[4:]) != {"OBX"}:
        raise MessageInvalid("segments are missing or in the wrong order")
    head, patient, order, request = segments[:4]
    # Fields of MSH are counted from the separator, which is MSH-1.
    _require(0 < len(_field(head, 9)) <= _LONGEST_CONTROL_ID, "MSH-10 is empty or too long")
    _require(bool(_field(patient, 3).split("^")[0]), "PID-3 is empty: the images have no patient id")
    _require(bool(_field(request, 3)) and _field(order, 3) == _field(request, 3), "OBR-3 is empty or not ORC-3")
    _require(bool(_field(request, 22)), "OBR-22 is empty")
    for position, observation in enumerate(segments[4:], start=1):
        _check_observation(position, observation, _field(request, 25))
    numbers = sum(_field(observation, 2) == "NM" for observation in segments[4:])
    _require(numbers == measurements, f"{numbers} numbers for {measurements} measurements")


def _check_observation(position: int, observation: Sequence[str], status: str) -> None:
    where = f"OBX {position}"
    _require(_field(observation, 1) == str(position), f"{where}: OBX-1 is not its position")
    _require(bool(_field(observation, 3)), f"{where}: OBX-3 is empty")
    deleted = status == "X" and _field(observation, 11) == "D"
    _require(bool(_field(observation, 5)) != deleted, f"{where}: OBX-5 is empty, or is not where it should be")
    _require(deleted or _field(observation, 11) == status != "", f"{where}: OBX-11 is not OBR-25")
    if _field(observation, 2) == "NM" and not deleted:
        value = _field(observation, 5)
        _require(bool(_NUMBER.fullmatch(value)) and len(value) <= _LONGEST_NUMBER, f"{where}: OBX-5 is not a number")
        code, _, scheme = (*_field(observation, 6).split("^"), "", "", "")[:3]
        _require(bool(code) and scheme == "UCUM", f"{where}: OBX-6 is not a UCUM unit")


def _field(segment: Sequence[str], number: int) -> str:
    return segment[number] if len(segment) > number else ""


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise MessageInvalid(reason)
