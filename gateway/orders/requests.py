"""ORC, OBR, TQ1, IPC and ZDS: what was ordered (HL7 v2.5.1 chapter 4; IHE RAD-2, RAD-4, RAD-28). Pure.

Sites put the accession number in different fields; ``accession_fields`` says where to look, in order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from gateway.domain.context import Identifier, Order, Person, Report, Request
from gateway.domain.messages import Code
from gateway.hl7.segments import Components, Delimiters, Message, Segment
from gateway.orders.patients import LONGEST_ID, Unreadable, read_person, read_visit

ACCESSION_FIELDS = ("IPC-1", "OBR-18")
_LONGEST_TEXT = 2000  # characters of a reason for study
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_PRIORITIES = {  # HL7 tables 0485 and 0027, and what people write instead
    "S": "STAT", "STAT": "STAT", "E": "STAT", "EMERGENCY": "STAT", "EMERGENT": "STAT", "1": "STAT",
    "A": "ASAP", "ASAP": "ASAP", "U": "ASAP", "URGENT": "ASAP", "UR": "ASAP",
    "R": "ROUTINE", "ROUTINE": "ROUTINE", "N": "ROUTINE", "NORMAL": "ROUTINE",
    "P": "PREOP", "PREOP": "PREOP", "C": "CALLBACK", "CALLBACK": "CALLBACK",
    "T": "TIMING CRITICAL", "TIMING CRITICAL": "TIMING CRITICAL", "PRN": "PRN", "HIGH": "ASAP", "LOW": "ROUTINE",
}  # fmt: skip
_SECTIONS = {"CT": "CT", "NMR": "MR", "RUS": "US", "MR": "MR", "US": "US", "MG": "MG", "PT": "PT"}  # table 0074, OBR-24
_MODALITY = re.compile(r"[A-Z0-9]{2,16}")


@dataclass
class _Group:
    """The segments of one order, as far as they have come."""

    own: dict[str, Segment] = field(default_factory=dict)

    def get(self, name: str) -> Segment:
        return self.own.get(name, Segment(name, Delimiters()))


def read_orders(message: Message, accession_fields: Sequence[str] = ACCESSION_FIELDS) -> Iterator[Order]:
    """Every order of an ORM^O01, OMI^O23 or OMG^O19; raises Unreadable where an order has no number at all."""
    person, visit = read_person(message.first("PID")), read_visit(message.first("PV1"))
    allergies = tuple(filter(None, (_allergy(segment) for segment in message.all("AL1"))))
    groups = list(_groups(message))
    if not groups:
        raise Unreadable("neither ORC nor OBR: no order in it")
    for group in groups:
        order, request, imaging = group.get("ORC"), group.get("OBR"), group.get("IPC")
        yield Order(
            **vars(_request(group, person, accession_fields)),
            visit=visit,
            control=order.get(1).upper(),
            placer_field_1=_short(request.get(18)),
            placer_field_2=_short(request.get(19)),
            requested_procedure_id=_short(imaging.get(2) or request.get(19)),
            procedure=_codes(request.repetitions(4)),
            modality=_modality(imaging, request),
            priority=_priority(group),
            reason=_reason(request),
            provider=_components(request, 16) or _components(order, 12),
            allergies=allergies,
        )


def read_reports(message: Message, accession_fields: Sequence[str] = ACCESSION_FIELDS) -> Iterator[Report]:
    """Each reported procedure of an ORU^R01; raises Unreadable where one has no number at all."""
    person = read_person(message.first("PID"))
    groups = list(_groups(message))
    if not groups:
        raise Unreadable("no OBR: no report in it")
    for group in groups:
        status = group.get("OBR").get(25).upper()
        yield Report(**vars(_request(group, person, accession_fields)), status=status)


def _groups(message: Message) -> Iterator[_Group]:
    """Segments to orders: a second ORC or OBR begins the next one, whichever of the two comes first at this sender."""
    group = _Group()
    for segment in message.segments:
        if segment.name in ("ORC", "OBR") and segment.name in group.own:
            yield group
            group = _Group()
        if segment.name in ("ORC", "OBR", "TQ1", "IPC", "ZDS"):
            group.own.setdefault(segment.name, segment)
    if "ORC" in group.own or "OBR" in group.own:
        yield group


def _request(group: _Group, person: Person, accession_fields: Sequence[str]) -> Request:
    order, request, imaging = group.get("ORC"), group.get("OBR"), group.get("IPC")
    accession = next(filter(None, (_at(group, name) for name in accession_fields)), "")
    study = next(filter(_UID.fullmatch, (imaging.get(3), group.get("ZDS").get(1))), "")
    found = Request(
        person=person,
        accession_number=_short(accession),
        placer_number=_entity(order, 2) or _entity(request, 2),
        filler_number=_entity(order, 3) or _entity(request, 3),
        study_uid=study if len(study) <= 64 else "",
    )
    if found == Request(person=person):
        raise Unreadable("an order without accession number, order number and Study Instance UID")
    return found


def _at(group: _Group, place: str) -> str:
    """The text at a place such as `OBR-18` or `IPC-1.1`."""
    segment, _, rest = place.partition("-")
    number, _, component = rest.partition(".")
    return group.get(segment).get(int(number), int(component or 1))


def _entity(segment: Segment, number: int) -> tuple[Identifier, ...]:
    """EI (2.A.28): one, or none."""
    value = _short(segment.get(number))
    if not value:
        return ()
    namespace, universal, kind = (_short(segment.get(number, component)) for component in (2, 3, 4))
    return (Identifier(id=value, authority=namespace, universal_id=universal, universal_id_type=kind),)


def _codes(repetitions: Sequence[Components]) -> tuple[Code, ...]:
    """CE or CWE (2.A.8): the code and its alternate, as far as they are given."""
    found = []
    for first in (1, 4) if repetitions else ():
        value, meaning, scheme = (_short(repetitions[0].get(first + step)) for step in range(3))
        if value or meaning:
            found.append(Code(value=value, scheme=scheme, meaning=meaning))
    return tuple(found)


def _modality(imaging: Segment, request: Segment) -> str:
    said = imaging.get(5).upper()
    return said if _MODALITY.fullmatch(said) else _SECTIONS.get(request.get(24).upper(), "")


def _priority(group: _Group) -> str:
    """TQ1-9, ORC-7.6, OBR-27.6 or OBR-5; some write the word into the first component of a quantity."""
    timing, order, request = group.get("TQ1"), group.get("ORC"), group.get("OBR")
    for said in (timing.get(9), order.get(7, 6), request.get(27, 6), request.get(5)):
        if said:
            return _PRIORITIES.get(said.upper(), _short(said.upper()))
    for said in (order.get(7), request.get(27)):
        if not said.isdigit() and said.upper() in _PRIORITIES:
            return _PRIORITIES[said.upper()]
    return ""


def _reason(request: Segment) -> str:
    reasons = [item.get(2) or item.get(5) or item.get(1) for item in request.repetitions(31)]
    return ("; ".join(filter(None, reasons)) or request.get(13))[:_LONGEST_TEXT]


def _allergy(segment: Segment) -> str:
    said = segment.get(3, 2) or segment.get(3, 1) or segment.get(3, 5)
    return said[:LONGEST_ID]


def _components(segment: Segment, number: int) -> tuple[str, ...]:
    found = segment.repetitions(number)
    return tuple(part[:LONGEST_ID] for part in found[0].all()) if found else ()


def _short(text: str) -> str:
    if len(text) > LONGEST_ID:
        raise Unreadable(f"a number or code has more than {LONGEST_ID} characters")
    return text
