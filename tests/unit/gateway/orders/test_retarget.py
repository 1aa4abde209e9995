"""What becomes of a message when the EHR says that it is about somebody else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.domain.context import Identifier, Subject
from gateway.domain.states import DeliveryState
from gateway.domain.study import Patient
from gateway.orders.retarget import Step, difference, step

SAID = Subject(patient=Patient(patient_id="P1", name="Wang^XiaoDong", birth_date="19800101"), accession_number="A1")
MERGED = replace(SAID, patient=replace(SAID.patient, patient_id="P2"))
ORDERED = replace(SAID, placer_number=(Identifier(id="PL1", authority="EHR"),))
IN_OTHER_WORDS = replace(
    SAID,
    patient=Patient(patient_id="P1", issuer="HOSP", name="WANG^XIAODONG=王^小東", birth_date="19800101", sex="M"),
    identifiers=(Identifier(id="P1", authority="HOSP"),),
)


@pytest.mark.parametrize("state", [DeliveryState.HELD, DeliveryState.WAITING])
def test_what_nobody_has_seen_is_written_anew(state: DeliveryState) -> None:
    assert step(state, 0, SAID, MERGED) is Step.REWRITE
    assert step(state, 0, SAID, IN_OTHER_WORDS) is Step.REWRITE
    assert step(state, 0, SAID, SAID) is Step.KEEP


@pytest.mark.parametrize(
    ("state", "attempts"),
    [
        (DeliveryState.WAITING, 1),
        (DeliveryState.DELIVERED, 1),
        (DeliveryState.DEAD, 3),
        (DeliveryState.WITHDRAWN, 2),
    ],
)
def test_what_somebody_may_have_seen_is_corrected(state: DeliveryState, attempts: int) -> None:
    assert step(state, attempts, SAID, MERGED) is Step.CORRECT
    assert step(state, attempts, SAID, ORDERED) is Step.CORRECT
    assert step(state, attempts, SAID, IN_OTHER_WORDS) is Step.KEEP


def test_what_is_being_sent_decides_later() -> None:
    assert step(DeliveryState.SENDING, 1, SAID, MERGED) is Step.WAIT


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (MERGED, "patient id"),
        (ORDERED, "placer order number"),
        (replace(SAID, filler_number=(Identifier(id="F"),)), "filler order number"),
        (replace(SAID, accession_number="A2"), "accession number"),
        (replace(SAID, patient=replace(SAID.patient, name="Li^Na")), "patient name"),
        (replace(SAID, patient=replace(SAID.patient, birth_date="19800102")), "birth date"),
        (replace(SAID, patient=replace(SAID.patient, sex="M")), "sex"),
        (replace(SAID, accession_number="", patient=replace(SAID.patient, birth_date="")), ""),
        (SAID, ""),
    ],
)
def test_what_a_reader_would_be_misled_about(now: Subject, said: str) -> None:
    """In words, without saying who; what was not said before misleads nobody, but for numbers that a receiver files by."""
    assert difference(replace(SAID, patient=replace(SAID.patient, sex="F")), now) == said
    assert (difference(SAID, now) == said) is (said != "sex")
