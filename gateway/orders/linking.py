"""Which order belongs to a study, whether it can be true, and whom messages about it are to name. Pure.

By accession number, then placer or filler number (0040,2016 and 0040,2017), then Study Instance UID; the patient must
agree. Who is the same person by a merge agrees.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

from gateway.domain.context import (
    Fact,
    Identifier,
    Key,
    Order,
    Report,
    StudyContext,
    patient_keys,
    request_keys,
)
from gateway.domain.messages import Code
from gateway.domain.names import agree, comparable
from gateway.domain.study import Patient
from gateway.orders.identity import Description, Identities, Name

_HOW = ("accession number", "order number", "study instance uid")


@dataclass(frozen=True, kw_only=True)
class Images:
    """What the images of a study say of themselves."""

    patient: Patient
    study_uid: str
    modalities: frozenset[str] = frozenset()
    accession_numbers: frozenset[str] = frozenset()
    order_numbers: frozenset[str] = frozenset()  # placer's and filler's
    requested: tuple[Code, ...] = ()  # Requested Procedure Code Sequence (0032,1064)

    def keys(self) -> tuple[Key, ...]:
        """By what facts about the study are found."""
        numbers = sorted(self.order_numbers | self.accession_numbers)  # many sites use the filler's as accession number
        request = request_keys(sorted(self.accession_numbers), numbers, (self.study_uid,))
        return (*request, *patient_keys((self.patient.patient_id.strip(),)))


def link(images: Images, facts: Sequence[Fact]) -> StudyContext:
    """What facts say about a study: its order, its patient of today, its reports, and what cannot be true."""
    identities = Identities(facts)
    found = _choose(images, list(_orders(facts)), identities)
    order, how = found if found else (None, "")
    names = _who(images, order, identities)
    survivors = sorted({identities.survivor(name) for name in names})
    mismatch = _mismatch(images, order, identities)
    if len(survivors) > 1 and not mismatch and any(identities.merges_of(name) for name in names):
        mismatch = "the patient id of the images is known from several authorities, and one of them was merged"
    known = identities.describe(survivors[0]) if len(survivors) == 1 else Description()
    return StudyContext(
        patient=_patient(images.patient, known),
        identifiers=known.identifiers,
        order=(order,) if order else (),
        matched_by=how,
        reports=_reports(images, order, facts),
        merges=identities.merges_of(names[0]) if len(names) == 1 else 0,
        mismatch=mismatch
        or ("" if order or any(map(identities.merges_of, names)) else _stranger(images.patient, known)),
    )


def _who(images: Images, order: Order | None, identities: Identities) -> list[Name]:
    """The names the images' patient can have; the order says which where there are several."""
    mine = _identifier(images.patient)
    names = identities.candidates(mine) if mine else []
    ordered = _survivors(order, identities) if order else set()
    meant = [name for name in names if identities.survivor(name) in ordered]
    return meant or names


def _orders(facts: Sequence[Fact]) -> Iterator[tuple[tuple[float, str], Order]]:
    """Every order as it stands after all its messages: what a later one leaves out stays as it was."""
    groups: list[list[Fact]] = []
    for fact in sorted((fact for fact in facts if isinstance(fact.body, Order)), key=lambda fact: fact.when):
        known = [group for group in groups if any(_same_order(fact.body, item.body) for item in group)]
        merged = [item for group in known for item in group] + [fact]
        groups = [group for group in groups if group not in known] + [merged]
    for group in groups:
        ordered = sorted(group, key=lambda fact: fact.when)
        order = Order()
        for fact in ordered:
            order = _updated(order, fact.body)
        yield ordered[-1].when, order


def _same_order(first: object, second: object) -> bool:
    if not isinstance(first, Order) or not isinstance(second, Order):
        return False
    pairs = (first.filler_number, second.filler_number), (first.placer_number, second.placer_number)
    given = [(ours[0], theirs[0]) for ours, theirs in pairs if ours and theirs]
    if given:
        return all(ours.fits(theirs) for ours, theirs in given)
    return bool(first.accession_number) and first.accession_number == second.accession_number


def _updated(order: Order, later: object) -> Order:
    changes = {item.name: value for item in fields(Order) if _says(value := getattr(later, item.name))}
    return replace(order, **changes)


def _says(value: object) -> bool:
    return bool(value) and value != type(value)()


def _choose(
    images: Images, orders: Sequence[tuple[tuple[float, str], Order]], identities: Identities
) -> tuple[Order, str] | None:
    """The order of the study, and how it was found; one whose patient agrees before all others."""
    ranked = []
    for when, order in orders:
        how = _match(images, order)
        if how is None:
            continue
        agrees = not _patient_mismatch(images.patient, order, identities)
        fits = not _procedure_mismatch(images, order)
        rank = (agrees, -how, order.study_uid == images.study_uid, fits, not order.cancelled, when)
        ranked.append((rank, order, _HOW[how]))
    if not ranked:
        return None
    _, order, how_found = max(ranked, key=lambda item: item[0])
    return order, how_found


def _match(images: Images, order: Order | Report) -> int | None:
    if order.accession_number and order.accession_number in images.accession_numbers:
        return 0
    numbers = {item.id for item in (*order.placer_number, *order.filler_number)}
    if numbers & (images.order_numbers | images.accession_numbers):
        return 1
    return 2 if order.study_uid and order.study_uid == images.study_uid else None


def _mismatch(images: Images, order: Order | None, identities: Identities) -> str:
    if order is None:
        return ""
    wrong = [*_patient_mismatch(images.patient, order, identities), *_procedure_mismatch(images, order)]
    return f"order and images do not agree: {', '.join(wrong)}" if wrong else ""


def _patient_mismatch(patient: Patient, order: Order, identities: Identities) -> list[str]:
    """What tells the order's patient from the images'; nothing where one has become the other by a merge."""
    mine = _identifier(patient)
    ordered = _survivors(order, identities)
    names = identities.candidates(mine) if mine else []
    common = [name for name in names if identities.survivor(name) in ordered]
    if names and ordered and not common:
        return ["another patient id"]
    if common and common[0] not in set(map(identities.name, order.person.identifiers)):
        return []
    known = [identities.describe(identities.survivor(name)) for name in common]
    names_had = {order.person.name, *(name for item in known for name in item.names)} - {""}
    births = {order.person.birth_date, *(date for item in known for date in item.birth_dates)} - {""}
    return _differences(patient, names_had, births)


def _differences(patient: Patient, names: Iterable[str], birth_dates: Iterable[str]) -> list[str]:
    wrong = []
    names, dates = list(names), set(birth_dates)
    if patient.name.strip("^= ") and names and not any(agree(patient.name, name) for name in names):
        wrong.append("another patient name")
    birth = patient.birth_date.replace(".", "").strip()
    if birth and dates and birth not in dates:
        wrong.append("another birth date")
    return wrong


def _stranger(patient: Patient, known: Description) -> str:
    """The EHR knows the id, but as somebody with another name and another birth date."""
    named = [name for name in known.names if comparable(patient.name, name)]
    wrong = _differences(patient, named, known.birth_dates)
    return "the EHR knows this patient id with another name and birth date" if len(wrong) == 2 else ""


def _procedure_mismatch(images: Images, order: Order) -> list[str]:
    wrong = []
    if order.modality and images.modalities and order.modality not in images.modalities:
        wrong.append(f"the order is for {order.modality}, the images are {', '.join(sorted(images.modalities))}")
    schemes = {code.scheme for code in images.requested if code.value}
    ordered = {(code.value, code.scheme) for code in order.procedure if code.value and code.scheme in schemes}
    if ordered and not ordered & {(code.value, code.scheme) for code in images.requested}:
        wrong.append("another requested procedure")
    return wrong


def _survivors(order: Order, identities: Identities) -> set[Name]:
    return {identities.survivor(name) for item in order.person.identifiers for name in identities.candidates(item)}


def _identifier(patient: Patient) -> Identifier | None:
    value = patient.patient_id.strip()
    return Identifier(id=value, authority=patient.issuer.strip()) if value else None


def _patient(patient: Patient, known: Description) -> Patient:
    """The images' patient as the EHR has them today."""
    first = known.identifiers[0] if known.identifiers else None
    return Patient(
        patient_id=first.id if first else patient.patient_id,
        issuer=first.authority if first else patient.issuer,
        name=known.name or patient.name,
        birth_date=known.birth_date or patient.birth_date,
        sex=known.sex or patient.sex,
    )


def _reports(images: Images, order: Order | None, facts: Sequence[Fact]) -> tuple[Report, ...]:
    """Reports about the study, or about its order."""
    mine = sorted((fact for fact in facts if isinstance(fact.body, Report)), key=lambda fact: fact.when)
    numbers = {item.id for item in (*order.placer_number, *order.filler_number)} if order else set()
    known = replace(images, order_numbers=images.order_numbers | numbers)
    return tuple(fact.body for fact in mine if isinstance(fact.body, Report) and _match(known, fact.body) is not None)
