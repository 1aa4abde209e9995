"""Which order a study has, who its patient is today, and what is held."""

from __future__ import annotations

import itertools
from datetime import UTC

import pytest

from gateway.domain.context import Fact, StudyContext
from gateway.domain.messages import Code
from gateway.domain.study import Patient
from gateway.orders.linking import Images, link
from gateway.orders.reading import Conventions, read
from tests.support import hl7

IMAGES = Images(
    patient=Patient(patient_id="P1", name="Wang^XiaoDong=王^小東", birth_date="19800101", sex="M"),
    study_uid="1.2.3",
    modalities=frozenset({"MR"}),
    accession_numbers=frozenset({"A1"}),
)
BY_NUMBER = Images(patient=IMAGES.patient, study_uid="1.2.3", order_numbers=frozenset({"FL1"}))


def facts(*messages: str) -> list[Fact]:
    """All that messages say."""
    return [fact for message in messages for fact in read(message, 0.0, Conventions(zone=UTC)).facts]


def linked(*messages: str, images: Images = IMAGES) -> StudyContext:
    """The study's context; the same in whatever order the messages come."""
    found = {link(images, facts(*some)) for some in itertools.permutations(messages)}
    assert len(found) == 1
    return found.pop()


def merge(control_id: str, prior: str, surviving: str, time: str, **more: str) -> str:
    """An A40."""
    return hl7.adt("A40", control_id, patient=f"{surviving}^^^HOSP", prior=f"{prior}^^^HOSP", time=time, **more)


def test_order_by_accession_number() -> None:
    context = linked(hl7.order())
    assert (context.matched_by, context.mismatch) == ("accession number", "")
    assert context.order[0].placer_number[0].id == "PL1"
    assert (context.patient.patient_id, context.patient.issuer) == ("P1", "HOSP")


def test_order_by_filler_number_and_by_study() -> None:
    assert linked(hl7.order(accession="other"), images=BY_NUMBER).matched_by == "order number"
    by_study = Images(patient=Patient(patient_id="4711"), study_uid="1.2.276.0.7230010.3.1.2.9")
    assert linked(hl7.hl7(hl7.IHE_OMI), images=by_study).matched_by == "study instance uid"


def test_no_order() -> None:
    context = linked(hl7.order(accession="A2", filler="F2", placer="P2"))
    assert (context.order, context.mismatch, context.patient.patient_id) == ((), "", "P1")


def test_nothing_known_leaves_the_patient_as_the_images_have_it() -> None:
    context = link(IMAGES, [])
    assert (context.patient, context.identifiers) == (IMAGES.patient, ())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"patient": "P9^^^HOSP"}, "another patient id"),
        ({"name": "Li^Na^^^^^L^A~李^娜^^^^^L^I"}, "another patient name"),
        ({"birth_date": "19790101"}, "another birth date"),
        ({"modality": "CT"}, "the order is for CT, the images are MR"),
    ],
)
def test_mismatch_is_told_without_naming_anybody(changes: dict[str, str], said: str) -> None:
    context = linked(hl7.order(**changes))
    assert said in context.mismatch
    assert not any(word in context.mismatch for word in ("P1", "P9", "Wang", "李", "1979"))


def test_another_requested_procedure() -> None:
    images = Images(
        patient=IMAGES.patient,
        study_uid="1.2.3",
        accession_numbers=IMAGES.accession_numbers,
        requested=(Code(value="MRKNEE", scheme="L", meaning=""),),
    )
    assert "another requested procedure" in linked(hl7.order(), images=images).mismatch
    assert linked(hl7.order(code="X^Y^OTHER"), images=images).mismatch == ""


def test_the_order_whose_patient_agrees_is_taken() -> None:
    """An accession number that another hospital has given too."""
    other = hl7.order("2", patient="Q7^^^OTHER", name="Li^Na", placer="x", filler="y", time="20261125080000")
    assert linked(hl7.order(), other).order[0].placer_number[0].id == "PL1"


def test_a_later_message_changes_an_order_and_keeps_what_it_leaves_out() -> None:
    later = hl7.order("2", control="XO", priority="S", accession="", code="", time="20261124090000")
    order = linked(hl7.order(), later).order[0]
    assert (order.priority, order.control, order.accession_number) == ("STAT", "XO", "A1")
    assert order.procedure[0].value == "MRHEAD"


def test_a_cancelled_order_gives_way_to_the_one_that_replaces_it() -> None:
    cancel = hl7.order("2", control="CA", time="20261124090000")
    again = hl7.order("3", placer="PL2^EHR", filler="FL2^RIS", time="20261124085959")
    assert linked(hl7.order(), cancel, again).order[0].placer_number[0].id == "PL2"


def test_merges_are_followed_in_a_chain() -> None:
    context = linked(
        hl7.order(),
        merge("2", "P1", "P2", "20261124090000"),
        merge("3", "P2", "P3", "20261124091000", name="Wang^Xiaodong"),
    )
    assert (context.patient.patient_id, context.merges, context.mismatch) == ("P3", 2, "")
    assert [item.id for item in context.identifiers] == ["P3"]
    assert context.patient.name == "Wang^Xiaodong"


def test_a_merge_is_taken_back_by_one_the_other_way_round() -> None:
    there = merge("2", "P1", "P2", "20261124090000")
    back = merge("3", "P2", "P1", "20261124091000")
    assert linked(hl7.order(), there, back).patient.patient_id == "P1"
    again = merge("4", "P1", "P2", "20261124092000")
    assert linked(hl7.order(), there, back, again).patient.patient_id == "P2"


def test_a_long_way_round() -> None:
    steps = [merge("2", "P1", "P2", "20261124090000"), merge("3", "P2", "P3", "20261124091000")]
    assert linked(*steps, merge("4", "P3", "P1", "20261124092000")).patient.patient_id == "P1"


def test_identity_through_a_merge_is_no_mismatch() -> None:
    """The emergency's patient without a name turns out to be somebody; the order is corrected to that person."""
    unknown = Images(
        patient=Patient(patient_id="TEMP7", name="Unknown^Trauma", birth_date="19000101"),
        study_uid="1.2.3",
        accession_numbers=IMAGES.accession_numbers,
    )
    assert "another patient id" in linked(hl7.order(), images=unknown).mismatch
    context = linked(hl7.order(), merge("2", "TEMP7", "P1", "20261124090000"), images=unknown)
    assert (context.mismatch, context.patient.patient_id, context.patient.name) == ("", "P1", "Wang^XiaoDong=王^小東")


def test_a_name_that_was_changed_is_no_mismatch() -> None:
    married = hl7.adt("A08", "2", name="Li^XiaoDong^^^^^L^A~李^小東^^^^^L^I")
    context = linked(hl7.order(), married)
    assert (context.mismatch, context.patient.name) == ("", "Li^XiaoDong=李^小東")


def test_the_latest_update_counts_whenever_it_comes() -> None:
    first = hl7.adt("A08", "2", name="Wang^Xiao", time="20261124090000")
    second = hl7.adt("A31", "3", name="Wang^XiaoDong", time="20261124100000")
    assert linked(first, second).patient.name == "Wang^XiaoDong"


def test_somebody_else_under_the_same_id() -> None:
    """No order, but the EHR knows the id with another name and another birth date."""
    assert "another name and birth date" in linked(hl7.adt("A08", "2", name="Li^Na", birth_date="19700101")).mismatch
    assert linked(hl7.adt("A08", "2", name="Li^Na")).mismatch == ""


def test_the_same_id_from_two_authorities() -> None:
    """F39: images without issuer; a merge at one of the two hospitals must not move the other's patient."""
    other = hl7.adt("A08", "2", patient="P1^^^OTHER", name="Li^Na", birth_date="19700101")
    assert linked(hl7.order(), other).patient.issuer == "HOSP"
    moved = hl7.adt("A40", "3", patient="P5^^^OTHER", prior="P1^^^OTHER", name="Li^Na")
    assert linked(hl7.order(), other, moved).patient.patient_id == "P1"
    nobody = linked(hl7.adt("A08", "1"), other, moved)
    assert "several authorities" in nobody.mismatch
    assert nobody.patient.patient_id == "P1"


def test_other_identifiers_of_the_patient_go_along() -> None:
    both = "P1^^^HOSP^MR~N1^^^NAT^NI"
    by_national = Images(
        patient=Patient(patient_id="N1"), study_uid="1.2.3", accession_numbers=IMAGES.accession_numbers
    )
    context = linked(hl7.order(patient=both), images=by_national)
    assert [item.id for item in context.identifiers] == ["N1", "P1"]
    assert context.mismatch == ""
    merged = linked(hl7.order(patient=both), merge("2", "P1", "P2", "20261124090000"), images=by_national)
    assert "P1" not in [item.id for item in merged.identifiers]


def test_reports() -> None:
    context = linked(hl7.order(), hl7.report(), hl7.report("R2", status="C", time="20261124130000"))
    assert [item.status for item in context.reports] == ["F", "C"]
    assert linked(hl7.report(accession="A2").replace("FL1", "x").replace("PL1", "y")).reports == ()
