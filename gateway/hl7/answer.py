"""How a message is acknowledged: original and enhanced mode (HL7 v2.5.1 2.9). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from gateway.hl7.head import Head
from gateway.hl7.segments import Delimiters

_DEFAULT_VERSION = "2.5.1"
_VERSION = re.compile(r"2\.\d(\.\d)?")
_CODES = {"0": "Message accepted", "100": "Segment sequence error", "101": "Required field missing",
    "102": "Data type error", "103": "Table value not found", "200": "Unsupported message type",
    "201": "Unsupported event code", "202": "Unsupported processing id", "203": "Unsupported version id",
    "204": "Unknown key identifier", "205": "Duplicate key identifier", "206": "Application record locked",
    "207": "Application internal error"}  # fmt: skip
"""HL7 table 0357."""


class Decision(Enum):
    """What becomes of a message that has arrived."""

    ACCEPTED = "A"  # durable: AA, CA
    ERROR = "E"  # not now, the same again may be accepted: AE, CE
    REJECTED = "R"  # never in this form: AR, CR


@dataclass(frozen=True, slots=True)
class Reply:
    """What to say about a message."""

    decision: Decision
    text: str = ""  # MSA-3, one sentence in ASCII, no patient data
    code: str = "0"  # of table 0357
    location: str = ""  # ERR-2, e.g. PID^1^3


ACCEPTED = Reply(Decision.ACCEPTED)


def answers(reply: Reply, head: Head | None, now: datetime, control_id: str) -> list[bytes]:
    """The acknowledgements of one message, without framing: one, in enhanced mode two or none; encoded as it was.

    In enhanced mode (MSH-15 or MSH-16 is valued) the accept acknowledgement comes first, if MSH-15 asks for it, then
    the application acknowledgement, if MSH-16 does: what is promised, that the message is kept, is true already. A
    message of which nothing can be read is rejected in original mode, so that whatever was framed has an answer.
    """
    if head is None or not head.enhanced:
        return [_acknowledgement("A", reply, head, now, control_id)]
    wanted = (("C", head.accept_acknowledgement), ("A", head.application_acknowledgement))
    return [
        _acknowledgement(mode, reply, head, now, f"{control_id}{mode}")
        for mode, condition in wanted
        if _is_wanted(condition, reply.decision)
    ]


def _is_wanted(condition: str, decision: Decision) -> bool:
    """Table 0155; what is not in it is answered, since silence would make the sender wait."""
    success = decision is Decision.ACCEPTED
    return {"": False, "NE": False, "AL": True, "SU": success, "ER": not success}.get(condition, True)


def _acknowledgement(mode: str, reply: Reply, head: Head | None, now: datetime, control_id: str) -> bytes:
    delimiters = head.delimiters if head else Delimiters()
    text = "\r".join(_segments(f"{mode}{reply.decision.value}", reply, head, delimiters, now, control_id)) + "\r"
    return text.encode(head.written_in if head else "ascii", "replace")


def _segments(
    code: str, reply: Reply, head: Head | None, delimiters: Delimiters, now: datetime, control_id: str
) -> Iterator[str]:
    bar, hat = delimiters.field, delimiters.component
    version = head.version if head and _VERSION.fullmatch(head.version) else _DEFAULT_VERSION
    to = (head.sending_application, head.sending_facility) if head else ("", "")
    own = (head.receiving_application, head.receiving_facility) if head else ("HILUM", "")
    kind = hat.join(("ACK", head.event, "ACK")) if head and head.event and version >= "2.3.1" else "ACK"
    processing = head.processing_id if head and head.processing_id in ("P", "T", "D") else "P"
    time = now.strftime("%Y%m%d%H%M%S%z")
    start = ["MSH", delimiters.encoding_characters, *own, *to, time, "", kind, control_id, processing, version]
    charset = ["", "", "", "", "", head.charset] if head and head.charset else []
    yield bar.join([*start, *charset])
    text = _plain(reply.text, delimiters)
    yield bar.join(["MSA", code, head.control_id if head else "", text]).rstrip(bar)
    if reply.decision is not Decision.ACCEPTED:
        yield from _error(reply, text, delimiters, version)


def _error(reply: Reply, text: str, delimiters: Delimiters, version: str) -> Iterator[str]:
    """ERR as its version has it: from v2.5 on code, severity and text, before that only a place with a code."""
    bar, hat = delimiters.field, delimiters.component
    meaning = hat.join((reply.code, _CODES.get(reply.code, "Error"), "HL70357"))
    place = reply.location.replace("^", hat)
    if version >= "2.5":
        yield bar.join(["ERR", "", place, meaning, "E", "", "", "", text]).rstrip(bar)
    else:
        inner = meaning.replace(hat, delimiters.subcomponent)
        yield bar.join(["ERR", hat.join([*[*place.split(hat), "", "", ""][:3], inner])])


def _plain(text: str, delimiters: Delimiters) -> str:
    used = {delimiters.field, *delimiters.encoding_characters}
    return "".join(" " if sign in used or not sign.isprintable() else sign for sign in text)[:200]
