"""What the EHR has told about patients, orders and merges, and what of it belongs to a study.

A *fact* is one statement of one HL7 message, kept for ever; what holds for a study is worked out anew from all facts
whenever one arrives, in the order in which they were made at their source and not in which they came.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from gateway.domain.messages import Code, RequestedProcedure
from gateway.domain.study import Patient


@dataclass(frozen=True, kw_only=True)
class Identifier:
    """A patient's identifier (CX) or an order's number (EI) with who gave it."""

    id: str
    authority: str = ""  # namespace (HD.1, EI.2); DICOM's Issuer of Patient ID (0010,0021)
    universal_id: str = ""  # HD.2, EI.3
    universal_id_type: str = ""  # HD.3, EI.4
    type_code: str = ""  # CX.5, HL7 table 0203: MR, PI, ...

    def fits(self, other: Identifier) -> bool:
        """Whether both can be the same: an authority that is not named is any."""
        if self.id != other.id:
            return False
        if self.universal_id and other.universal_id:
            return self.universal_id == other.universal_id
        ours, theirs = self.authority.casefold(), other.authority.casefold()
        return not ours or not theirs or ours == theirs


@dataclass(frozen=True, kw_only=True)
class Person:
    """A patient as a message describes them (PID)."""

    identifiers: tuple[Identifier, ...] = ()  # PID-3, as listed
    name: str = ""  # PID-5 as a DICOM person name, all groups
    birth_date: str = ""  # PID-7, YYYYMMDD
    sex: str = ""  # PID-8


@dataclass(frozen=True, kw_only=True)
class Visit:
    """The encounter (PV1)."""

    patient_class: str = ""  # PV1-2
    location: tuple[str, ...] = ()  # PV1-3, its components
    number: tuple[Identifier, ...] = ()  # PV1-19; one or none


@dataclass(frozen=True, kw_only=True)
class Request:
    """By what an order, or a report on it, is known."""

    person: Person = Person()
    accession_number: str = ""
    placer_number: tuple[Identifier, ...] = ()  # ORC-2, OBR-2; one or none
    filler_number: tuple[Identifier, ...] = ()  # ORC-3, OBR-3; one or none
    study_uid: str = ""  # IPC-3, ZDS-1


@dataclass(frozen=True, kw_only=True)
class Order(Request):
    """An imaging order (ORC, OBR, TQ1, IPC, ZDS) as it stands after one message."""

    visit: Visit = Visit()
    control: str = ""  # ORC-1, HL7 table 0119: NW, XO, CA, ...
    placer_field_1: str = ""  # OBR-18
    placer_field_2: str = ""  # OBR-19
    requested_procedure_id: str = ""  # IPC-2
    procedure: tuple[Code, ...] = ()  # OBR-4: the code, then its alternate
    modality: str = ""  # IPC-5, or what OBR-24 says of it
    priority: str = ""  # STAT, ASAP, ROUTINE, ...
    reason: str = ""  # OBR-31, or OBR-13
    provider: tuple[str, ...] = ()  # OBR-16, ORC-12: components of the ordering provider
    allergies: tuple[str, ...] = ()  # AL1-3

    @property
    def cancelled(self) -> bool:
        """Whether it was taken back (HL7 table 0119)."""
        return self.control in ("CA", "DC", "OC", "OD", "CR", "DR")


@dataclass(frozen=True, kw_only=True)
class Merge:
    """One identifier has become another (A40 and older forms, A47)."""

    prior: Identifier  # MRG-1
    surviving: Identifier  # PID-3


@dataclass(frozen=True, kw_only=True)
class Report(Request):
    """The radiologist's report has been written (ORU^R01 of the RIS); its text stays in the message."""

    status: str = ""  # OBR-25, HL7 table 0123: F final, C corrected


class KeyKind(Enum):
    """By what facts and studies find each other."""

    PATIENT = "patient"
    ACCESSION = "accession"
    ORDER = "order"  # placer's and filler's numbers
    STUDY = "study"


@dataclass(frozen=True)
class Key:
    """One value by which facts and studies find each other."""

    kind: KeyKind
    value: str


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One statement, with when it was made."""

    at: float  # seconds since the epoch, by the clock of its source
    tie: str  # tells apart, always in the same way, what was said at the same time
    body: Person | Order | Merge | Report

    @property
    def when(self) -> tuple[float, str]:
        """Facts sort by this."""
        return self.at, self.tie


def keys_of(body: Person | Order | Merge | Report) -> tuple[Key, ...]:
    """By what a fact is found."""
    if isinstance(body, Person):
        return _keys(KeyKind.PATIENT, (item.id for item in body.identifiers))
    if isinstance(body, Merge):
        return _keys(KeyKind.PATIENT, (body.prior.id, body.surviving.id))
    return request_keys(
        (body.accession_number,), (item.id for item in (*body.placer_number, *body.filler_number)), (body.study_uid,)
    )


def request_keys(accessions: Iterable[str], numbers: Iterable[str], studies: Iterable[str]) -> tuple[Key, ...]:
    """By what an order and its study find each other."""
    return (
        *_keys(KeyKind.ACCESSION, accessions),
        *_keys(KeyKind.ORDER, numbers),
        *_keys(KeyKind.STUDY, studies),
    )


def patient_keys(identifiers: Iterable[str]) -> tuple[Key, ...]:
    """By what a patient's facts are found."""
    return _keys(KeyKind.PATIENT, identifiers)


def _keys(kind: KeyKind, values: Iterable[str]) -> tuple[Key, ...]:
    return tuple(Key(kind, value) for value in dict.fromkeys(values) if value)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Whom and what a message to the EHR names."""

    patient: Patient  # PID-5, 7, 8
    identifiers: tuple[Identifier, ...] = ()  # PID-3; of the patient where there are none
    accession_number: str = ""
    placer_number: tuple[Identifier, ...] = ()  # ORC-2, OBR-2
    filler_number: tuple[Identifier, ...] = ()  # of the order that this result belongs to
    procedure: tuple[Code, ...] = ()  # OBR-4: the ordered procedure
    visit: Visit = Visit()  # PV1
    provider: tuple[str, ...] = ()  # OBR-16
    placer_field_1: str = ""  # OBR-18
    placer_field_2: str = ""  # OBR-19
    reason: str = ""  # OBR-31


@dataclass(frozen=True, kw_only=True)
class StudyContext:
    """What the EHR's facts say about one study."""

    patient: Patient  # whom messages are about: the images' patient after merges and updates
    identifiers: tuple[Identifier, ...] = ()  # PID-3 of messages; empty where the EHR has not told of the patient
    order: tuple[Order, ...] = ()  # the order of the study; one or none
    matched_by: str = ""  # `accession number`, `order number`, `study instance uid`
    reports: tuple[Report, ...] = ()  # of the radiologist, oldest first
    merges: int = 0  # how many merges led from the images' patient to this one
    mismatch: str = ""  # why images and EHR cannot be about the same thing; no patient data

    def subject(self, accession_number: str) -> Subject:
        """Whom and what a message names; the images' accession number where there is no order."""
        order = self.order[0] if self.order else Order()
        return Subject(
            patient=self.patient,
            identifiers=self.identifiers,
            accession_number=order.accession_number or accession_number,
            placer_number=order.placer_number,
            filler_number=order.filler_number,
            procedure=order.procedure,
            visit=order.visit,
            provider=order.provider,
            placer_field_1=order.placer_field_1,
            placer_field_2=order.placer_field_2,
            reason=order.reason,
        )

    def requested_procedure(self) -> RequestedProcedure | None:
        """The order by its numbers and codes, without anything that says who the patient is."""
        if not self.order:
            return None
        order = self.order[0]
        return RequestedProcedure(
            accession_number=order.accession_number,
            placer_order_number=order.placer_number[0].id if order.placer_number else "",
            filler_order_number=order.filler_number[0].id if order.filler_number else "",
            requested_procedure_id=order.requested_procedure_id,
            procedure=order.procedure[:1],
        )
