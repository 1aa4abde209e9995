"""What a message must be before it leaves. Pure.

hl7apy checks the structure (segments, groups, cardinality, of each version); it lets a number that is none, a result status
that is none, and a missing unit pass, so those are checked here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hl7apy.core import Group, Message
from hl7apy.exceptions import HL7apyException
from hl7apy.parser import parse_message

from gateway.domain.errors import MessageInvalid

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_CONTROL = re.compile(r"[\x00-\x1f]")
_LONGEST_CONTROL_ID = 20  # ST of MSH-10 in v2.5.1
_LONGEST_NUMBER = 16  # NM
_LONG = 4096  # characters of a segment; a longer one holds a document, whose data need not be parsed
_TYPES = frozenset({"ST", "NM", "CE", "CWE", "TX", "FT", "RP", "ED"})


@dataclass(frozen=True)
class Expected:
    """What the message is to be."""

    structure: str  # MSH-9.3
    control_id: str
    version: str
    cancelled: bool = False  # what was reported before is deleted
    measurements: int | None = None  # how many numbers the result has: each must be there; not asked for where None


def validated(lines: Sequence[str], expected: Expected) -> str:
    """The message of these segments, each ended by CR; raises MessageInvalid, naming the field."""
    segments = [line.split("|") for line in lines]
    _check_order([segment[0] for segment in segments], expected)
    _check_ids(segments, expected)
    _check_observations([segment for segment in segments if segment[0] == "OBX"], segments, expected)
    if any(_CONTROL.search(line) for line in lines):
        raise MessageInvalid("a segment holds a control character")
    _check_structure([line for line in lines if not line.startswith("Z")], expected)
    return "\r".join(lines) + "\r"


def _check_order(names: Sequence[str], expected: Expected) -> None:
    pattern = {
        "ORU_R01": r"MSH PID (PV1 )?ORC OBR( OBX)+( Z\w\w)*",
        "MDM_T02": r"MSH EVN PID PV1 (ORC OBR )?TXA( OBX)+( Z\w\w)*",
        "MDM_T01": r"MSH EVN PID PV1 (ORC OBR )?TXA( Z\w\w)*",
    }[expected.structure]
    _require(bool(re.fullmatch(pattern, " ".join(names))), "segments are missing or in the wrong order")


def _check_ids(segments: Sequence[Sequence[str]], expected: Expected) -> None:
    by_name = {segment[0]: segment for segment in reversed(segments)}
    head, patient = by_name["MSH"], by_name["PID"]
    # Fields of MSH are counted from the separator, which is MSH-1.
    _require(0 < len(_field(head, 9)) <= _LONGEST_CONTROL_ID, "MSH-10 is empty or too long")
    _require(_field(head, 9) == expected.control_id, "MSH-10 is not the message's control id")
    _require(_field(head, 8).endswith(expected.structure), "MSH-9 is not the message's structure")
    _require(bool(_field(patient, 3).split("^")[0]), "PID-3 is empty: the images have no patient id")
    if "OBR" in by_name:
        order, request = by_name["ORC"], by_name["OBR"]
        _require(bool(_field(request, 3)) and _field(order, 3) == _field(request, 3), "OBR-3 is empty or not ORC-3")
        _require(bool(_field(request, 4)), "OBR-4 is empty")
        _require(bool(_field(request, 22)), "OBR-22 is empty")
    if "TXA" in by_name:
        _require(bool(_field(by_name["TXA"], 12)), "TXA-12 is empty")


def _check_observations(
    observations: Sequence[Sequence[str]], segments: Sequence[Sequence[str]], expected: Expected
) -> None:
    request = next((segment for segment in segments if segment[0] == "OBR"), None)
    for position, observation in enumerate(observations, start=1):
        status = _field(request, 25) if request else _field(observation, 11)
        _check_observation(position, observation, status, cancelled=expected.cancelled)
    numbers = sum(_field(observation, 2) == "NM" for observation in observations)
    wanted = expected.measurements
    _require(wanted is None or numbers == wanted, f"{numbers} numbers for {wanted} measurements")


def _check_observation(position: int, observation: Sequence[str], status: str, *, cancelled: bool) -> None:
    where, kind, value = f"OBX {position}", _field(observation, 2), _field(observation, 5)
    deleted = cancelled and _field(observation, 11) == "D"
    _require(_field(observation, 1) == str(position), f"{where}: OBX-1 is not its position")
    _require(kind in _TYPES, f"{where}: OBX-2 is not a type that we write")
    _require(bool(_field(observation, 3)), f"{where}: OBX-3 is empty")
    _require(bool(value) != deleted, f"{where}: OBX-5 is empty, or is not where it should be")
    _require(deleted or _field(observation, 11) == status != "", f"{where}: OBX-11 is not OBR-25")
    if kind == "NM" and not deleted:
        _require(bool(_NUMBER.fullmatch(value)) and len(value) <= _LONGEST_NUMBER, f"{where}: OBX-5 is not a number")
        code, _, scheme = (*_field(observation, 6).split("^"), "", "", "")[:3]
        _require(bool(code) and scheme == "UCUM", f"{where}: OBX-6 is not a UCUM unit")
    if kind == "ED" and not deleted:
        encoding, data = (*value.split("^"), "", "", "", "", "")[3:5]
        _require(encoding == "Base64" and bool(_BASE64.fullmatch(data)), f"{where}: OBX-5 is no Base64 document")


def _check_structure(lines: Sequence[str], expected: Expected) -> None:
    """As hl7apy sees it: its groups, valid in its version, and the same again when written."""
    short = [_without_document(line) for line in lines]
    whole = "\r".join(short)
    try:
        is_result = expected.structure == "ORU_R01"
        message: Message = (
            grouped_result(short, expected.version) if is_result else parse_message(whole, find_groups=True)
        )
        message.validate()
        again = str(message.to_er7())
    except HL7apyException as error:
        raise MessageInvalid(f"the message is not a valid {expected.structure}: {type(error).__name__}") from error
    if message.name != expected.structure or not _same(again.rstrip("\r"), whole, expected.version):
        raise MessageInvalid("the message does not survive being read")


def _same(again: str, whole: str, version: str) -> bool:
    again = again.replace("\\E\\.br\\E\\", "\\.br\\")  # hl7apy escapes the line ends of FT once more
    if version != "2.8":
        return again == whole
    # Of version 2.8 hl7apy does not write the place of a withdrawn field (EVN-1, OBR-5): only what is filled is compared.
    return [part for part in re.split(r"[|\r]", again) if part] == [part for part in re.split(r"[|\r]", whole) if part]


def grouped_result(lines: Sequence[str], version: str) -> Message:
    """The ORU_R01 of these segments: MSH, PID, PV1 or none, ORC, OBR, OBX. hl7apy's own search puts OBX into a group before
    OBR from version 2.8 on."""
    message = Message("ORU_R01", version=version)
    message.msh = lines[0]
    result = message.add_group("ORU_R01_PATIENT_RESULT")
    patient = result.add_group("ORU_R01_PATIENT")
    order = result.add_group("ORU_R01_ORDER_OBSERVATION")
    common = order.add_group("ORU_R01_COMMON_ORDER") if version == "2.8" else order
    for line in lines[1:]:
        parent: Group = {
            "PID": lambda: patient,
            "PV1": lambda: patient.add_group("ORU_R01_VISIT"),
            "ORC": lambda: common,
            "OBR": lambda: order,
            "OBX": lambda: order.add_group("ORU_R01_OBSERVATION"),
        }[line[:3]]()
        parent.add_segment(line[:3]).value = line
    return message


def _without_document(line: str) -> str:
    if len(line) < _LONG or not line.startswith("OBX|") or "^Base64^" not in line:
        return line
    before, _, after = line.partition("^Base64^")
    return f"{before}^Base64^AAAA|{after.partition('|')[2]}"


def _field(segment: Sequence[str], number: int) -> str:
    return segment[number] if len(segment) > number else ""


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise MessageInvalid(reason)
