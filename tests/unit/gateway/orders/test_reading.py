"""What messages of real engines come to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone

import pytest

from gateway.domain.context import Identifier, Merge, Order, Person, Report
from gateway.domain.messages import Code
from gateway.orders.patients import Unreadable
from gateway.orders.reading import Conventions, Read, read
from tests.support import hl7

HERE = Conventions(zone=timezone(timedelta(hours=8)))


def parse(text: str | Sequence[str], conventions: Conventions = HERE) -> Read:
    """Reads a message that was received at the epoch."""
    return read(text if isinstance(text, str) else hl7.hl7(text), 0.0, conventions)


def orders(text: str | Sequence[str]) -> list[Order]:
    """The orders of a message."""
    return [fact.body for fact in parse(text).facts if isinstance(fact.body, Order)]


def test_order_as_epic_writes_it() -> None:
    (order,) = orders(hl7.EPIC_ORM)
    assert order.accession_number == "A20261124"
    assert order.placer_number == (Identifier(id="445566", authority="EPC"),)
    assert order.filler_number == (Identifier(id="A20261124", authority="RIS"),)
    assert order.procedure == (Code(value="IMG182", scheme="EAP", meaning="MRI BRAIN W/O CONTRAST"),)
    assert (order.priority, order.modality, order.control) == ("STAT", "MR", "NW")
    assert order.reason == "Headache & nausea"
    assert order.allergies == ("IODINATED CONTRAST",)
    assert order.study_uid == "1.2.840.113619.2.1"
    assert order.person.name == "GARCIA-LOPEZ^MARÍA^T"
    assert [item.id for item in order.person.identifiers] == ["E4477", "900127"]
    assert order.visit.patient_class == "E"
    assert order.visit.number == (Identifier(id="V5512", authority="EPI"),)
    assert order.provider[:3] == ("77001", "HOUSE", "GREGORY")


def test_order_as_cerner_writes_it() -> None:
    (order,) = orders(hl7.CERNER_OMG)
    assert (order.accession_number, order.priority) == ("", "ASAP")  # its filler order number is the accession number
    assert order.procedure[1] == Code(value="MRHEAD", scheme="L", meaning="MRI Head")
    assert order.filler_number[0].id == "CR7788"
    assert order.reason == "pain behind the eye"
    assert order.person.birth_date == "19620317"
    assert order.person.identifiers[0].universal_id == "2.16.840.1.113883.3.1"
    when = datetime(2026, 11, 24, 8, 30, tzinfo=timezone(timedelta(hours=-6))).timestamp()
    assert parse(hl7.CERNER_OMG).facts[0].at == when


def test_order_as_ihe_wants_it() -> None:
    (order,) = orders(hl7.IHE_OMI)
    assert (order.accession_number, order.requested_procedure_id) == ("ACC-9", "RP-9")
    assert (order.study_uid, order.modality, order.priority) == ("1.2.276.0.7230010.3.1.2.9", "CT", "ROUTINE")
    assert order.person.name == "Müller^Jürgen^^Dr."


def test_batch_in_the_wrong_order_of_segments() -> None:
    first, second = orders(hl7.MIRTH_ORM)
    assert (first.placer_number[0].id, first.procedure[0].value, first.priority) == ("77", "XR1", "STAT")
    assert (second.placer_number[0].id, second.procedure[0].value, second.priority) == ("78", "CT1", "ASAP")
    assert first.person.identifiers == second.person.identifiers == (Identifier(id="55"),)
    assert second.filler_number[0].id == "89"


def test_delimiters_of_its_own() -> None:
    (order,) = orders(hl7.ORION_ORM)
    assert order.procedure[0].meaning == "Knee ! hip"
    assert (order.accession_number, order.priority, order.control) == ("ACC", "STAT", "XO")
    assert order.person.name == "Meier^Hans"


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r\r"])
def test_other_line_ends(ending: str) -> None:
    assert orders(ending.join(hl7.EPIC_ORM)) == orders(hl7.EPIC_ORM)


@pytest.mark.parametrize(
    ("said", "priority"),
    [
        *(("S", "STAT"), ("stat", "STAT"), ("A", "ASAP"), ("U", "ASAP"), ("R", "ROUTINE"), ("T", "TIMING CRITICAL")),
        *(("Dringend", "DRINGEND"), ("", "")),
    ],
)
def test_priority(said: str, priority: str) -> None:
    assert orders(hl7.order(priority=said))[0].priority == priority


def test_priority_as_a_bare_word() -> None:
    lines = [line.replace("^^^^^R", "STAT") for line in hl7.order().split("\r")]
    assert orders("\r".join(lines))[0].priority == "STAT"


def test_accession_number_where_the_site_says() -> None:
    conventions = Conventions(zone=UTC, accession_fields=("ZAC-2.1", "ORC-2"))
    text = hl7.order()
    (order,) = [fact.body for fact in parse(text, conventions).facts if isinstance(fact.body, Order)]
    assert order.accession_number == "PL1"


@pytest.mark.parametrize("event", ["A18", "A34", "A40", "A47"])
def test_merge(event: str) -> None:
    facts = parse(hl7.adt(event, "9", patient="P2^^^HOSP~N2^^^NAT", prior="N1^^^NAT~P1^^^HOSP")).facts
    merges = [fact.body for fact in facts if isinstance(fact.body, Merge)]
    assert [(item.prior.id, item.surviving.id) for item in merges] == [("N1", "N2"), ("P1", "P2")]
    assert [fact.body.name for fact in facts if isinstance(fact.body, Person)] == ["Wang^XiaoDong=王^小東"]


def test_two_merges_in_one_message_also_in_the_wrong_order() -> None:
    head = r"MSH|^~\&|A|B|C|D|20261124||ADT^A40^ADT_A39|1|P|2.5.1"
    people = ["PID|||P2^^^H||A^B", "MRG|P1^^^H", "PID|||Q2^^^H||C^D", "MRG|Q1^^^H"]
    for lines in (people, [people[1], people[0], people[3], people[2]]):
        merges = [fact.body for fact in parse([head, *lines]).facts if isinstance(fact.body, Merge)]
        assert [(item.prior.id, item.surviving.id) for item in merges] == [("P1", "P2"), ("Q1", "Q2")]


@pytest.mark.parametrize("event", ["A01", "A04", "A08", "A28", "A31"])
def test_update(event: str) -> None:
    (fact,) = parse(hl7.adt(event, "9")).facts
    assert isinstance(fact.body, Person)
    assert fact.at == datetime(2026, 11, 24, 9, tzinfo=HERE.zone).timestamp()


def test_report_counts_only_when_it_is_final() -> None:
    (fact,) = parse(hl7.report()).facts
    assert isinstance(fact.body, Report)
    assert (fact.body.accession_number, fact.body.status) == ("A1", "F")
    assert parse(hl7.report(status="P")).facts == ()


def test_what_is_of_no_use() -> None:
    assert parse(hl7.adt("A02", "1")).nothing == "ADT^A02 is of no use here"
    assert "trials" in parse(hl7.order().replace("|P|2.5.1", "|T|2.5.1")).nothing
    assert (
        "came back" in parse(hl7.report().replace("|RIS|", "|HILUM|"), Conventions(zone=UTC, ourselves="HILUM")).nothing
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        hl7.adt("A40", "1"),  # no MRG
        hl7.adt("A08", "1", patient=""),
        hl7.order(accession="", placer="", filler=""),
        hl7.order(accession="A" * 300),
        hl7.order(patient="P" * 300),
        hl7.hl7((hl7.order().split("\r")[0],)),
    ],
)
def test_what_cannot_be_understood(text: str) -> None:
    with pytest.raises(Unreadable) as told:
        parse(text)
    assert "Wang" not in str(told.value)


def test_a_message_without_any_time_has_that_of_its_arrival() -> None:
    text = hl7.order(time="yesterday")
    assert read(text, 1234.5, HERE).facts[0].at == 1234.5


def test_nothing_that_a_database_cannot_keep() -> None:
    (order,) = orders(hl7.order(code=r"K\X00\1^a\X0D\b^L"))
    assert order.procedure == (Code(value="K 1", scheme="L", meaning="a b"),)
