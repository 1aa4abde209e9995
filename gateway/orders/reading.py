"""One HL7 message to the facts in it, or why there are none. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo

from gateway.domain.context import Fact, Merge, Order, Person, Report
from gateway.domain.inbound import ApplicationAnswer
from gateway.hl7.acknowledgement import application_answer
from gateway.hl7.segments import Message, read_messages
from gateway.orders.patients import Unreadable, read_merges, read_person
from gateway.orders.requests import ACCESSION_FIELDS, read_orders, read_reports

ORDERS = {("ORM", "O01"), ("OMI", "O23"), ("OMG", "O19"), ("ORM", "")}
MERGES = {("ADT", event) for event in ("A18", "A34", "A40", "A47")}
UPDATES = {("ADT", event) for event in ("A01", "A04", "A05", "A08", "A28", "A31")}
REPORTS = {("ORU", "R01"), ("ORU", "")}
_FINAL = ("F", "C")  # HL7 table 0123: final, corrected


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """How this site's senders write."""

    zone: tzinfo | None  # of times without an offset; this machine's own where there is none
    processing_id: str = "P"  # MSH-11 of what is meant for us
    accession_fields: tuple[str, ...] = ACCESSION_FIELDS
    ourselves: str = ""  # MSH-3 of our own messages, which an engine may send round


@dataclass(frozen=True, kw_only=True)
class Read:
    """What a message came to."""

    kind: str  # `ORM^O01`
    facts: tuple[Fact, ...] = ()
    answers: tuple[ApplicationAnswer, ...] = ()
    nothing: str = ""  # why there is no fact in it although it can be read


def read(text: str, received_at: float, conventions: Conventions) -> Read:
    """The facts of a message, or of every message of a batch; raises Unreadable, which says what is missing.

    Their time is that of the event, so that it does not matter in which order messages arrive.
    """
    messages = list(read_messages(text))
    if not messages:
        raise Unreadable("no MSH segment")
    parts = [_read_one(message, received_at, conventions) for message in messages]
    kinds = list(dict.fromkeys(part.kind for part in parts))
    facts = tuple(fact for part in parts for fact in part.facts)
    answers = tuple(answer for part in parts for answer in part.answers)
    nothing = "" if facts or answers else "; ".join(dict.fromkeys(part.nothing for part in parts))
    return Read(kind=", ".join(kinds)[:60], facts=facts, answers=answers, nothing=nothing)


def _read_one(message: Message, received_at: float, conventions: Conventions) -> Read:
    code, trigger = message.type
    kind = "^".join(filter(None, (code, trigger)))[:20]
    if answer := application_answer(message):  # by MSA-2, whatever MSH-11 our own message had
        return Read(kind=kind, answers=(answer,))
    processing = message.head.get(11).upper() or conventions.processing_id
    if processing != conventions.processing_id:
        return Read(kind=kind, nothing=f"MSH-11 is not {conventions.processing_id}: a message for trials")
    if conventions.ourselves and message.head.get(3) == conventions.ourselves:
        return Read(kind=kind, nothing="a message of our own that came back")
    found = message.time(conventions.zone)
    at = received_at if found is None else found
    control_id = message.head.get(10)[:200]
    bodies = _bodies(message, code, trigger, conventions.accession_fields)
    facts = tuple(
        Fact(at=at, tie=f"{len(control_id):03d} {control_id} {position:04d}", body=body)
        for position, body in enumerate(bodies)
    )
    return Read(kind=kind, facts=facts, nothing="" if facts else f"{kind or 'its kind'} is of no use here")


def _bodies(
    message: Message, code: str, trigger: str, accession_fields: Sequence[str]
) -> list[Person | Order | Merge | Report]:
    if (code, trigger) in MERGES:
        return [*_people(message), *read_merges(message)]
    if (code, trigger) in UPDATES:
        people = _people(message)
        if not people:
            raise Unreadable("no PID with an identifier: whose update it is cannot be told")
        return [*people]
    if (code, trigger) in ORDERS:
        return [*_people(message), *read_orders(message, accession_fields)]
    if (code, trigger) in REPORTS:
        return [item for item in read_reports(message, accession_fields) if item.status in _FINAL]
    return []


def _people(message: Message) -> list[Person]:
    found = (read_person(segment) for segment in message.all("PID"))
    return [person for person in found if person.identifiers]
