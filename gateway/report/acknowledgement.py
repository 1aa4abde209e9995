"""What an acknowledgement means for the message it answers (HL7 v2.5.1 2.9). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.domain.job import Receipt, Verdict

_VERDICTS = {
    "AA": Verdict.ACCEPTED,
    "CA": Verdict.ACCEPTED,
    "AE": Verdict.RETRY,
    "CE": Verdict.RETRY,
    "AR": Verdict.REJECTED,
    "CR": Verdict.REJECTED,
}
_LONGEST_TEXT = 80  # characters of MSA-3
_SHORTEST_SECRET = 3  # characters; shorter parts of ids and names hide nothing and would tear words apart


@dataclass(frozen=True)
class Acknowledgement:
    """The MSA segment of an answer."""

    code: str  # MSA-1
    control_id: str  # MSA-2
    text: str  # MSA-3


def read_acknowledgement(answer: bytes) -> Acknowledgement | None:
    """The acknowledgement in an answer, or None where it is none."""
    segments = re.split(r"[\r\n]+", answer.decode("utf-8", "replace").strip())
    if not segments[0].startswith("MSH") or len(segments[0]) < 4:
        return None
    separator = segments[0][3]
    for segment in segments[1:]:
        name, *fields = segment.split(separator)
        if name == "MSA" and len(fields) >= 2:
            code, control_id, text = (*fields, "")[:3]
            return Acknowledgement(code.strip().upper(), control_id.strip(), text)
    return None


def judge(answer: bytes, message: bytes) -> tuple[bool, Receipt]:
    """Whether the answer belongs to the message, and what it means for it.

    AA and CA: accepted. AE and CE: again later, with the same bytes. AR and CR: rejected. Anything that does not name
    MSH-10 of the message in MSA-2, or has another code, says nothing about it: again later, on a new connection.
    """
    acknowledgement = read_acknowledgement(answer)
    if acknowledgement is None:
        return False, _retry("the answer is not an acknowledgement")
    if acknowledgement.control_id != control_id(message):
        return False, _retry("the acknowledgement is for another message")
    if acknowledgement.code not in _VERDICTS:
        return False, _retry("the acknowledgement has an unknown code")
    text = _without_patient(acknowledgement.text, message)
    note = "".join(sign for sign in text if sign.isprintable())[:_LONGEST_TEXT].strip()
    verdict = _VERDICTS[acknowledgement.code]
    return True, Receipt(verdict=verdict, answer=f"{acknowledgement.code}{': ' if note else ''}{note}")


def control_id(message: bytes) -> str:
    """MSH-10 of a message, empty where there is none."""
    head = message.split(b"\r", 1)[0].decode("utf-8", "replace")
    fields = head.split(head[3]) if len(head) > 3 else []
    return fields[9].strip() if len(fields) > 9 else ""


def _without_patient(text: str, message: bytes) -> str:
    """MSA-3 without parts of the patient's identity, which some receivers quote; an answer ends up in logs."""
    for segment in message.split(b"\r"):
        if segment.startswith(b"PID"):
            fields = segment.decode("utf-8", "replace").split("|")
            private = "^".join(fields[number] for number in (3, 5, 7) if len(fields) > number)
            for word in sorted(re.split(r"[\^~&]", private), key=len, reverse=True):
                if len(word) >= _SHORTEST_SECRET:
                    text = re.sub(re.escape(word), "…", text, flags=re.IGNORECASE)
    return text


def _retry(answer: str) -> Receipt:
    return Receipt(verdict=Verdict.RETRY, answer=answer)
