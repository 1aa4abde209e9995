"""What an acknowledgement means for the message it answers (HL7 v2.5.1 2.9). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.domain.inbound import ApplicationAnswer
from gateway.domain.job import Receipt, Verdict
from gateway.hl7.head import attempt_head, lenient_text
from gateway.hl7.segments import Message, read_messages

_VERDICTS = {"A": Verdict.ACCEPTED, "E": Verdict.RETRY, "R": Verdict.REJECTED}
_APPLICATION_CODES = frozenset({"AA", "AE", "AR"})
_CODES = frozenset({"AA", "AE", "AR", "CA", "CE", "CR"})  # table 0008
_LONGEST_TEXT = 80  # characters of MSA-3
_LONGEST_KEPT = 250  # characters of MSA-3 that are kept of what an application says later
_SHORTEST_SECRET = 3  # characters; shorter parts of ids and names hide nothing and would tear words apart


@dataclass(frozen=True)
class Acknowledgement:
    """The MSA segment of an answer, and the reason that ERR gives."""

    code: str  # MSA-1
    control_id: str  # MSA-2
    text: str  # MSA-3, or ERR-8, or the text of ERR-3

    @property
    def is_accept(self) -> bool:
        """Whether it only says that the message is in safe storage: enhanced mode, an application's may follow."""
        return self.code.startswith("C")


def read_acknowledgement(answer: bytes) -> Acknowledgement | None:
    """The acknowledgement in an answer, or None where it is none."""
    message = next(read_messages(lenient_text(answer)), None)
    return None if message is None else acknowledgement_in(message)


def acknowledgement_in(message: Message) -> Acknowledgement | None:
    """What a message acknowledges, or None where it does not."""
    msa, err = message.first("MSA"), message.first("ERR")
    if not msa.get(1) or not msa.raw(2):
        return None
    text = msa.get(3) or err.get(8) or err.get(3, 2)
    return Acknowledgement(msa.get(1).upper(), msa.raw(2).strip(), text)


def application_answer(message: Message) -> ApplicationAnswer | None:
    """What an application says of a message of ours, whatever message type it comes as (ACK, ORR, MCF ...); or None."""
    found = acknowledgement_in(message)
    if found is None or found.code not in _APPLICATION_CODES:
        return None
    return ApplicationAnswer(control_id=found.control_id, code=found.code, text=found.text[:_LONGEST_KEPT])


def read_application_answer(raw: bytes) -> ApplicationAnswer | None:
    """The same of a message as bytes."""
    message = next(read_messages(lenient_text(raw)), None)
    return None if message is None else application_answer(message)


def judge(answer: bytes, message: bytes) -> tuple[Acknowledgement | None, Receipt]:
    """The acknowledgement if it belongs to the message (else None), and what the answer means for it.

    AA and CA: accepted. AE and CE: again later, with the same bytes. AR and CR: rejected. Anything that does not name
    MSH-10 of the message in MSA-2, or has another code, says nothing about it: again later, on a new connection.
    """
    acknowledgement = read_acknowledgement(answer)
    if acknowledgement is None:
        return None, _retry("the answer is not an acknowledgement")
    if acknowledgement.control_id != control_id(message):
        return None, _retry("the acknowledgement is for another message")
    if acknowledgement.code not in _CODES:
        return None, _retry("the acknowledgement has an unknown code")
    return acknowledgement, receipt_of(acknowledgement.code, acknowledgement.text, message)


def receipt_of(code: str, text: str, message: bytes) -> Receipt:
    """What a code of table 0008 and its MSA-3 mean for the message that they are about."""
    text = _without_patient(text, message)
    note = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())[:_LONGEST_TEXT]
    return Receipt(verdict=_VERDICTS[code[1]], answer=f"{code}{': ' if note else ''}{note}", answered=True)


def control_id(message: bytes) -> str:
    """MSH-10 of a message, empty where there is none."""
    head = attempt_head(message)
    return head.control_id if head else ""


def _without_patient(text: str, message: bytes) -> str:
    """MSA-3 without parts of the patient's identity, which some receivers quote; an answer ends up in logs."""
    messages = read_messages(lenient_text(message)) if text else ()
    private = "^".join(pid.raw(field) for one in messages for pid in one.all("PID") for field in (3, 5, 7))
    for word in sorted(re.split(r"[\^~&]", private), key=len, reverse=True):
        if len(word) >= _SHORTEST_SECRET:
            text = re.sub(re.escape(word), "…", text, flags=re.IGNORECASE)
    return text


def _retry(answer: str) -> Receipt:
    return Receipt(verdict=Verdict.RETRY, answer=answer)
