"""Reports that were not the last word when the EHR changed its mind: which leave, whom they name, and under which number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.domain.context import Subject
from gateway.domain.job import Edition, Job, ReportKind
from gateway.domain.study import Header
from gateway.letters import WrittenReport
from gateway.report import oru
from gateway.report.content import ReportContent
from gateway.report.segments import filler
from gateway.report.settings import Hl7Destination
from tests.property.test_context import MERGES, World
from tests.support import hl7
from tests.support.ledgers import EHR, LATER, NO, YES
from tests.support.outcomes import outcome


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An order, its images and a report that waits to be sent."""
    made = World(tmp_path, MERGES["one"])
    for name in ("order", "images"):
        made.event(name)
    made.step("result")
    yield made
    made.ledger.close()


def confirm(world: World) -> None:
    """A person stands for the result."""
    world.ledger.request_report(world.ledger.list_jobs()[0]["id"], ReportKind.FINAL, by="A")
    world.step("advance")


def test_every_edition_that_waits_names_the_patient_of_today(world: World) -> None:
    """Confirmed before the first report has left, then merged: both leave, and both name who the patient is now."""
    confirm(world)
    world.event("merge 0")
    for step in ("advance", "yes", "yes"):
        world.step(step)
    assert [(said["patient"], said["edition"]) for said in world.accepted] == [("P2", 1), ("P2", 2)]


def test_an_edition_that_was_tried_gives_way_to_the_one_behind_it(world: World) -> None:
    """Somebody may have seen the first: it does not go again, and the final one behind it needs no correction."""
    world.step("later")
    confirm(world)
    world.event("merge 0")
    world.settle()
    assert [(said["patient"], said["edition"]) for said in world.accepted] == [("P2", 2)]
    states = [row["state"] for row in world.ledger.list_deliveries() if row["role"] == "oru"]
    assert sorted(states) == ["delivered", "withdrawn"]


def test_what_its_application_has_not_answered_does_not_go_again_after_a_merge(world: World) -> None:
    """It was stored (CA). The correction does not wait for the application's answer, and an AE that comes then changes
    nothing: the message names somebody who is called differently now."""
    (sent,) = world.ledger.claim_deliveries(EHR, 60, 10)
    world.ledger.settle(sent, YES, None, proof_due=world.ledger.clock.now())
    world.event("merge 0")
    world.step("advance")
    world.step("advance")
    world.tell(hl7.hl7((r"MSH|^~\&|EHR||HILUM||20261124||ACK^R01|E1|P|2.5.1", f"MSA|AE|{sent.draft.key}")))
    world.settle()
    assert world.ledger.claim_proofs(EHR, 60, 10) == []
    assert [(said["patient"], said["edition"]) for said in world.accepted] == [("P2", 2)]


PROFILE = Hl7Destination(kind="hl7", host="127.0.0.1", port=2575, filler_number="order")


def write(job: Job, header: Header, subject: Subject, edition: Edition, control_id: str) -> WrittenReport:
    """For a receiver that files by the order's filler number."""
    job = replace(job, outcome=outcome(job_id=job.id))
    content = replace(ReportContent.of(job, header, edition, control_id), subject=subject)
    return WrittenReport(
        content=oru.build(content, PROFILE),
        role="oru",
        patient_key=content.patient_key,
        report_key=content.filler_number,
        filed_under=filler(content, PROFILE),
    )


def sent(world: World, receipt: object = YES) -> list[tuple[str, str, str, str]]:
    """Sends what is due; patient, OBR-3, OBR-25 and OBR-18 of each message."""
    found = []
    while batch := world.ledger.claim_deliveries(EHR, 60, 10):
        for item in batch:
            lines = world.spool.path(item.draft.file).read_bytes().decode().split("\r")
            fields = {line[:3]: [*line.split("|"), *[""] * 30] for line in lines}
            number = fields["OBR"][3].split("^")[0]
            assert fields["ORC"][3] == fields["OBR"][3]
            assert fields["MSH"][9] == item.draft.key
            found.append((fields["PID"][3].split("^")[0], number, fields["OBR"][25], fields["OBR"][18]))
            again = world.ledger.clock.now() + 5 if receipt is LATER else None
            world.ledger.settle(item, receipt, again)  # type: ignore[arg-type]
    return found


@pytest.fixture
def filed(tmp_path: Path) -> Iterator[World]:
    """Images without an order, whose report is filed by number."""
    made = World(tmp_path, MERGES["one"], write)
    made.event("images")
    made.step("result")
    yield made
    made.ledger.close()


def test_a_report_is_taken_away_from_the_number_it_was_under(filed: World) -> None:
    """The order comes after the report, then has another number; each time the report leaves the old place before it is at the
    new one, and when only the patient changes, it stays where it is."""
    ((patient, own, status, _),) = sent(filed)
    assert (patient, status) == ("P1", "P")
    filed.event("order")
    filed.step("advance")
    filed.step("advance")
    assert sent(filed) == [("P1", own, "X", "A1"), ("P1", "FL1", "C", "A1")]
    filed.tell(hl7.order("again", filler="FL2^RIS", control="XO", time="20261124083000"))
    filed.step("advance")
    filed.step("advance")
    assert sent(filed) == [("P1", "FL1", "X", "A1"), ("P1", "FL2", "C", "A1")]
    filed.event("merge 0")
    filed.step("advance")
    filed.step("advance")
    assert sent(filed) == [("P2", "FL2", "C", "A1")]
    keys = [row["key"] for row in filed.ledger.list_deliveries() if row["role"] == "oru"]
    assert len(keys) == len(set(keys)) == 6


def test_a_report_that_nobody_has_seen_only_changes_its_number(filed: World) -> None:
    """There is nothing to take away."""
    filed.event("order")
    filed.step("advance")
    assert sent(filed) == [("P1", "FL1", "P", "A1")]


def test_what_takes_a_report_away_keeps_its_number_and_names_the_patient_of_today(filed: World) -> None:
    """A merge before it has left; refused for good, it can be sent again behind the correction that went on without it."""
    ((_, own, _, _),) = sent(filed)
    filed.event("order")
    filed.step("advance")
    filed.step("advance")
    filed.event("merge 0")
    filed.step("advance")
    (withdrawal,) = filed.ledger.claim_deliveries(EHR, 60, 1)
    filed.ledger.settle(withdrawal, NO, None)
    assert sent(filed) == [("P2", "FL1", "C", "A1")]
    filed.ledger.replay_delivery(withdrawal.id)
    assert sent(filed) == [("P2", own, "X", "A1")]
