"""What becomes of messages when the EHR says that they are about somebody else, or about another order. Pure.

DICOM objects are not touched: they carry the identity of the images they were made from, and the archive, which is told
of the merge as well, moves both together (IHE PIR, RAD-12; docs/adr/0010-merges.md). Messages name whom the EHR knows.
"""

from __future__ import annotations

from enum import Enum

from gateway.domain.context import Identifier, Subject
from gateway.domain.names import agree
from gateway.domain.states import DeliveryState


class Step(Enum):
    """What to do with a message."""

    KEEP = "keep"
    WAIT = "wait"  # it is being sent this moment; what to do depends on the answer
    REWRITE = "rewrite"  # nobody has seen it: the same message, about whom it is now
    CORRECT = "correct"  # somebody may have it: it does not go again, a correction follows


def step(state: DeliveryState, attempts: int, said: Subject, now: Subject) -> Step:
    """What to do with a message that names ``said`` when it should name ``now``."""
    if state is DeliveryState.SENDING:
        return Step.WAIT
    if attempts == 0 and state in (DeliveryState.HELD, DeliveryState.WAITING):
        return Step.KEEP if said == now else Step.REWRITE
    return Step.CORRECT if difference(said, now) else Step.KEEP


def difference(said: Subject, now: Subject) -> str:
    """What a reader of the message would be misled about, or nothing; no patient data in it."""
    changes = [
        (
            "patient id",
            not _same(said.patient.patient_id, now.patient.patient_id, said.patient.issuer, now.patient.issuer),
        ),
        ("patient name", not agree(said.patient.name, now.patient.name)),
        ("birth date", _contradict(said.patient.birth_date, now.patient.birth_date)),
        ("sex", _contradict(said.patient.sex, now.patient.sex)),
        ("placer order number", _numbers_differ(said.placer_number, now.placer_number)),
        ("filler order number", _numbers_differ(said.filler_number, now.filler_number)),
        ("accession number", _adds(said.accession_number, now.accession_number)),
    ]
    return ", ".join(name for name, changed in changes if changed)


def _same(said: str, now: str, issuer: str, issuer_now: str) -> bool:
    """Ids are compared with their authority; one that was not named is any."""
    return Identifier(id=said.strip(), authority=issuer).fits(Identifier(id=now.strip(), authority=issuer_now))


def _contradict(said: str, now: str) -> bool:
    return bool(said.strip()) and _adds(said, now)


def _adds(said: str, now: str) -> bool:
    """A number that is known only now is news too: the receiver files by it."""
    return bool(now) and said.strip() != now.strip()


def _numbers_differ(said: tuple[Identifier, ...], now: tuple[Identifier, ...]) -> bool:
    return bool(now) and not (said and said[0].fits(now[0]))
