"""Reports that follow the first one: asked for in the ledger, written in order, sent in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.domain.errors import NotFound, ReportRefused
from gateway.domain.ids import JobId
from gateway.domain.job import Delivery, DeliveryDraft, Payload, ReportKind
from gateway.domain.states import JobEvent
from tests.support.ledgers import EHR, LATER, NO, PACS, YES, Story, deliveries


@pytest.fixture
def story(tmp_path: Path):  # type: ignore[no-untyped-def]
    """A job whose first report is on its way."""
    made = Story(tmp_path)
    made.queue()
    for event in (JobEvent.CLAIMED, JobEvent.COMMITTED):
        made.job_events[event]()
    made.ledger.plan(made.job, deliveries(made.job))
    yield made
    made.ledger.close()


def due(story: Story) -> list[Delivery]:
    return list(story.ledger.claim_deliveries(EHR, 60, 10))


def settle(story: Story, one: Delivery, receipt, next_try: float | None = None) -> None:  # type: ignore[no-untyped-def]
    story.ledger.settle(one, receipt, next_try)


def test_confirmation_makes_a_final_edition_later_than_the_first(story: Story) -> None:
    """With its own number and a time that is later by a second even if asked for at once; the job is on its way again."""
    story.deliver(YES)
    assert story.job_state() == "delivered"
    assert story.ledger.request_report(story.job, ReportKind.FINAL, by="Dr. Who") == 2
    ((job, edition),) = story.ledger.unwritten_editions()
    assert (edition.kind, edition.by, edition.verified) == (ReportKind.FINAL, "Dr. Who", True)
    assert job.finished_at is not None
    assert edition.at >= job.finished_at + 1
    story.report_again(ReportKind.CORRECTED)
    assert story.job_state() == "delivering"
    assert story.ledger.unwritten_editions() == []
    for _ in range(2):
        assert story.job_state() == "delivering"
        story.deliver(YES)
    assert story.job_state() == "delivered"
    events = story.ledger.explain(story.ledger.list_studies()[0]["uid"])["events"]
    assert any(event["what"] == "result confirmed" and "Dr. Who" in event["detail"] for event in events)


def test_editions_wait_for_each_other_through_retries_and_objects(story: Story) -> None:
    """The second edition is not sent before the first, which is held for its object and then not accepted for now."""
    story.report_again()
    assert due(story) == []
    story.deliver(YES, only=PACS)
    (first,) = due(story)
    assert first.draft.key == "c" + story.job[:15]
    assert due(story) == []
    settle(story, first, LATER, story.ledger.clock.now() + 300)
    assert due(story) == []
    story.ledger.clock.time += 300  # type: ignore[attr-defined]
    (again,) = due(story)
    assert again.id == first.id
    settle(story, again, YES)
    (second,) = due(story)
    assert second.draft.key.endswith("-2")


def test_a_dead_letter_lets_the_next_edition_go_and_cannot_follow_it(story: Story) -> None:
    """Sent again after its successor it would put what is old in the place of what is new."""
    story.deliver(YES, only=PACS)
    (first,) = due(story)
    settle(story, first, NO)
    story.report_again()
    (second,) = due(story)
    with pytest.raises(ReportRefused, match="later edition"):
        story.ledger.replay_delivery(first.id)
    settle(story, second, NO)
    story.ledger.replay_delivery(first.id)
    assert [one.id for one in due(story)] == [first.id]


def test_messages_of_one_patient_keep_their_order_and_others_pass(story: Story) -> None:
    """Another patient's message does not wait behind one that is not accepted."""
    story.deliver(YES, only=PACS)

    def add(key: str, patient: str) -> None:
        story.ledger.request_report(story.job, ReportKind.CORRECTED)
        ((_, edition),) = story.ledger.unwritten_editions()
        draft = DeliveryDraft(
            job_id=story.job, destination=EHR, payload=Payload.MESSAGE, role="oru", key=key, file="f",
            patient_key=patient, report_key=key,
        )  # fmt: skip
        story.ledger.publish(edition, [draft])

    (first,) = due(story)
    settle(story, first, LATER, story.ledger.clock.now() + 300)
    add("same", "p")
    add("other", "q")
    (other,) = due(story)
    assert other.draft.key == "other"
    settle(story, other, YES)
    story.ledger.clock.time += 300  # type: ignore[attr-defined]
    (again,) = due(story)
    assert again.id == first.id
    settle(story, again, YES)
    assert [one.draft.key for one in due(story)] == ["same"]


def test_what_cannot_be_reported_is_refused(tmp_path: Path, story: Story) -> None:
    """No such job, no result, confirmed twice, cancelled, replaced by a newer result."""
    with pytest.raises(NotFound):
        story.ledger.request_report(JobId("0" * 32), ReportKind.FINAL)
    story.ledger.request_report(story.job, ReportKind.FINAL, by="A")
    with pytest.raises(ReportRefused, match="confirmed already, by A"):
        story.ledger.request_report(story.job, ReportKind.FINAL, by="B")
    story.ledger.request_report(story.job, ReportKind.CANCELLED, reason="wrong images")
    with pytest.raises(ReportRefused, match="cancelled"):
        story.ledger.request_report(story.job, ReportKind.CORRECTED)
    (tmp_path / "early").mkdir()
    early = Story(tmp_path / "early")
    early.queue()
    with pytest.raises(ReportRefused, match="queued"):
        early.ledger.request_report(early.job, ReportKind.FINAL)
    early.ledger.close()


def test_a_new_result_in_place_of_a_confirmed_one_is_a_correction(story: Story) -> None:
    """Late images give a new result; the EHR has a final report, which only a correction may replace."""
    story.ledger.request_report(story.job, ReportKind.FINAL, by="A")
    story.queue()
    claim = story.ledger.claim("w", 60)
    assert claim is not None
    assert claim.job.supersedes == story.job
    assert story.ledger.first_edition(claim.job).kind is ReportKind.CORRECTED
    first = next(job for job in story.ledger.list_jobs() if job["id"] == story.job)
    assert first["supersedes"] is None


def test_an_edition_that_cannot_be_written_is_told_and_not_tried_again(story: Story) -> None:
    """The story says why."""
    story.ledger.request_report(story.job, ReportKind.FINAL, by="A")
    ((_, edition),) = story.ledger.unwritten_editions()
    story.ledger.give_up_edition(edition, "PID-3 is empty")
    assert story.ledger.unwritten_editions() == []
    events = story.ledger.explain(story.ledger.list_studies()[0]["uid"])["events"]
    assert events[-1]["detail"] == "PID-3 is empty"
