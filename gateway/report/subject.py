"""Whom and what a report names, as the EHR has told it: PID-3, PV1, and the order's numbers in ORC and OBR. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.domain.context import Identifier, Subject, Visit
from gateway.hl7.er7 import coded, join, segment, text


def identifiers(subject: Subject) -> str:
    """PID-3: as the EHR lists them, the patient of today first; where it has told none, the images' patient id."""
    listed = subject.identifiers or (
        Identifier(id=subject.patient.patient_id, authority=subject.patient.issuer, type_code="PI"),
    )
    return "~".join(map(_cx, listed))


def visit(subject: Subject) -> Iterator[str]:
    """PV1 where the EHR has told of an encounter; its class is required (table 0004: `U` is unknown)."""
    if subject.visit != Visit():
        location = "^".join(map(text, subject.visit.location))
        number = "".join(map(_cx, subject.visit.number))
        yield segment("PV1", {1: "1", 2: text(subject.visit.patient_class) or "U", 3: location, 19: number})


def order_fields(subject: Subject) -> dict[int, str]:
    """ORC: the placer's number."""
    return {2: _placer(subject)}


def request_fields(subject: Subject) -> dict[int, str]:
    """OBR: the order's numbers, procedure, provider and reason; its filler number is OBR-20."""
    fields = {
        2: _placer(subject),
        16: "^".join(map(text, subject.provider)),
        18: text(subject.accession_number),
        19: text(subject.placer_field_2),
        20: text(subject.filler_number[0].id) if subject.filler_number else "",
        31: f"^{text(subject.reason)}" if subject.reason else "",
    }
    if subject.procedure:
        parts = [part for code in subject.procedure for part in (code.value, code.meaning, code.scheme)]
        fields[4] = coded(*parts)
    return {number: value for number, value in fields.items() if value}


def written(subject: Subject) -> Iterator[tuple[str, str]]:
    """What must be written as it is or not at all: a kind of number, and its value."""
    for one in (*subject.identifiers, *subject.visit.number):
        yield "patient id", one.id + one.authority
    for one in (*subject.placer_number, *subject.filler_number):
        yield "order number", one.id + one.authority
    yield "accession number", subject.accession_number


def _placer(subject: Subject) -> str:
    return "".join(map(entity, subject.placer_number))


def entity(one: Identifier) -> str:
    """EI (2.A.28): an order's number with who gave it."""
    return join("^", *map(text, (one.id, one.authority, one.universal_id, one.universal_id_type)))


def _cx(one: Identifier) -> str:
    authority = join("&", *map(text, (one.authority, one.universal_id, one.universal_id_type)))
    return join("^", text(one.id), "", "", authority, text(one.type_code))
