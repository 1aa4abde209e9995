"""PID, MRG and PV1: who a message is about, and who became whom (HL7 v2.5.1 chapter 3). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from gateway.domain.context import Identifier, Merge, Person, Visit
from gateway.hl7.segments import Components, Message, Segment
from gateway.orders.names import person_name

LONGEST_ID = 250  # characters; CX.1 and EI.1 have fewer in every version
_DATE = re.compile(r"[0-9]{8}")


class Unreadable(ValueError):
    """The message says it is about something and does not say what; no patient data in it."""


def read_person(segment: Segment) -> Person:
    """The patient of a PID; identifiers from PID-3, else from where versions before 2.3.1 had them (PID-2, PID-4)."""
    found = next((items for number in (3, 2, 4) if (items := segment.repetitions(number))), [])
    birth = segment.get(7)[:8]
    return Person(
        identifiers=identifiers(found),
        name=person_name(segment.repetitions(5)),
        birth_date=birth if _DATE.fullmatch(birth) else "",
        sex=segment.get(8).upper()[:1],
    )


def read_visit(segment: Segment) -> Visit:
    """The encounter of a PV1."""
    location = segment.repetitions(3)
    return Visit(
        patient_class=segment.get(2)[:LONGEST_ID],
        location=tuple(part[:LONGEST_ID] for part in location[0].all()) if location else (),
        number=identifiers(segment.repetitions(19)[:1]),
    )


def read_merges(message: Message) -> Iterator[Merge]:
    """Who became whom in A18, A34, A40 and A47: each MRG belongs to the PID of the same place in the message.

    Where MRG-1 lists identifiers of several authorities, each goes to the surviving one of its own. Raises Unreadable
    where one of the two is missing.
    """
    patients, priors = message.all("PID"), message.all("MRG")
    if not patients or not priors or len(patients) not in (1, len(priors)):
        raise Unreadable(f"{len(patients)} PID for {len(priors)} MRG: who became whom cannot be told")
    if len(patients) == 1:
        patients *= len(priors)
    for patient, prior in zip(patients, priors, strict=True):
        yield from _pairs(read_person(patient).identifiers, _prior(prior))


def identifiers(repetitions: Sequence[Components]) -> tuple[Identifier, ...]:
    """CX repetitions (2.A.14) with an id in them; raises Unreadable for one that is absurdly long."""
    found = []
    for item in repetitions:
        if len(item.get(1)) > LONGEST_ID:
            raise Unreadable(f"an identifier has more than {LONGEST_ID} characters")
        if item.get(1):
            found.append(
                Identifier(
                    id=item.get(1),
                    authority=item.get(4, 1)[:LONGEST_ID],
                    universal_id=item.get(4, 2)[:LONGEST_ID],
                    universal_id_type=item.get(4, 3)[:LONGEST_ID],
                    type_code=item.get(5)[:LONGEST_ID],
                )
            )
    return tuple(dict.fromkeys(found))


def _prior(segment: Segment) -> tuple[Identifier, ...]:
    found = next((items for number in (1, 4, 2) if (items := segment.repetitions(number))), [])
    return identifiers(found)


def _pairs(surviving: Sequence[Identifier], priors: Sequence[Identifier]) -> Iterator[Merge]:
    if not surviving or not priors:
        raise Unreadable("MRG-1 or PID-3 is empty: who became whom cannot be told")
    for prior in priors:
        yield Merge(prior=prior, surviving=_counterpart(prior, surviving))


def _counterpart(prior: Identifier, surviving: Sequence[Identifier]) -> Identifier:
    def likeness(item: Identifier) -> tuple[bool, bool]:
        same_authority = (item.universal_id or item.authority.casefold()) == (
            prior.universal_id or prior.authority.casefold()
        )
        return same_authority, bool(prior.type_code) and item.type_code == prior.type_code

    return max(surviving, key=likeness)  # the first of equals
