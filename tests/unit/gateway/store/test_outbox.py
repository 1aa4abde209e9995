"""What dispatchers do to the ledger: one row for each object or message and destination."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from gateway.domain.errors import NotFound
from gateway.domain.job import Delivery, Receipt, Verdict
from gateway.domain.states import IllegalTransition, JobEvent
from tests.support.ledgers import EHR, LATER, NO, PACS, YES, Story, deliveries


@pytest.fixture
def story(tmp_path: Path):  # type: ignore[no-untyped-def]
    """A job that is ready to be planned."""
    made = Story(tmp_path)
    made.queue()
    for event in (JobEvent.CLAIMED, JobEvent.COMMITTED):
        made.job_events[event]()
    yield made
    made.ledger.close()


def due(story: Story, destination: str, limit: int = 10) -> list[Delivery]:
    return list(story.ledger.claim_deliveries(destination, 60, limit))  # type: ignore[arg-type]


def states(story: Story) -> list[str]:
    return [row["state"] for row in story.ledger.list_deliveries()[::-1]]


def test_a_message_waits_for_its_objects(story: Story) -> None:
    """It is held until the last object has an answer for good, yes or no."""
    story.ledger.plan(story.job, deliveries(story.job, ("1.1", "1.2")))
    first, second = due(story, PACS)
    assert due(story, EHR) == []
    story.ledger.settle(first, YES, None)
    story.ledger.settle(second, LATER, story.ledger.clock.now() + 5)
    assert due(story, EHR) == []
    story.ledger.clock.time += 5  # type: ignore[attr-defined]
    [second] = due(story, PACS)
    story.ledger.settle(second, NO, None)
    [message] = due(story, EHR)
    assert (message.draft.role, message.attempts) == ("oru", 1)
    story.ledger.settle(message, YES, None)
    assert story.job_state() == "undelivered"


def test_a_held_message_without_objects_goes_at_once(story: Story) -> None:
    """Nothing would ever let it go: there is no object whose arrival could."""
    story.ledger.plan(story.job, deliveries(story.job, ()))
    assert len(due(story, EHR)) == 1


def test_planned_once(story: Story) -> None:
    """A plan that was interrupted after its commit and is made again adds nothing."""
    for _ in range(2):
        story.ledger.plan(story.job, deliveries(story.job))
    assert states(story) == ["waiting", "held"]


def test_nothing_to_deliver_is_delivered(story: Story) -> None:
    """A rule without destinations ends well, and the story says that nothing went anywhere."""
    story.ledger.plan(story.job, [])
    assert story.job_state() == "delivered"
    events = story.ledger.explain(story.ledger.list_studies()[0]["uid"])["events"]
    assert any("nowhere" in event["detail"] for event in events)


def test_a_late_answer_changes_nothing(story: Story) -> None:
    """Once the lease is over and another has claimed the row, the first answer does not count any more."""
    story.ledger.plan(story.job, deliveries(story.job))
    [old] = due(story, PACS)
    assert due(story, PACS) == []
    story.ledger.lease_clock.time += 61  # type: ignore[attr-defined]
    [new] = due(story, PACS)
    assert (new.id, new.attempts, new.fence > old.fence) == (old.id, 2, True)
    story.ledger.settle(old, NO, None)
    assert states(story)[0] == "sending"
    story.ledger.settle(new, YES, None)
    story.ledger.settle(new, NO, None)
    assert states(story)[0] == "delivered"


def test_due_rows_come_in_order_and_up_to_the_limit(story: Story) -> None:
    """Oldest first, of one destination, and only what is due."""
    story.ledger.plan(story.job, deliveries(story.job, tuple(f"1.{number}" for number in range(5))))
    assert [one.draft.key for one in due(story, PACS, 2)] == ["1.0", "1.1"]
    assert [one.draft.key for one in due(story, PACS)] == ["1.2", "1.3", "1.4"]
    assert due(story, PACS) == []


def test_a_destination_that_never_answers_for_good(story: Story) -> None:
    """Deferred again and again it counts attempts and keeps its first try and last answer; without a next try it is dead."""
    story.ledger.plan(story.job, deliveries(story.job))
    began = story.ledger.clock.now()
    for attempt in range(1, 4):
        [one] = due(story, PACS)
        assert (one.attempts, one.first_try) == (attempt, began)
        story.ledger.settle(one, Receipt(verdict=Verdict.RETRY, answer=f"no {attempt}"), began + 10 * attempt)
        assert due(story, PACS) == []
        story.ledger.clock.time = began + 10 * attempt  # type: ignore[attr-defined]
    [one] = due(story, PACS)
    assert one.last_answer == "no 3"
    story.ledger.settle(one, LATER, None)
    assert states(story)[0] == "dead"


def test_dead_letters_can_be_sent_again(story: Story) -> None:
    """A replayed row has its whole time before it, its job is on the way again, and ends delivered."""
    story.ledger.plan(story.job, deliveries(story.job))
    story.deliver(NO)
    assert story.job_state() == "undelivered"
    for row in story.ledger.dead_letters()["deliveries"]:
        story.ledger.replay_delivery(row["id"])
        with pytest.raises(IllegalTransition):
            story.ledger.replay_delivery(row["id"])
    assert story.job_state() == "delivering"
    story.deliver(YES)
    assert story.job_state() == "delivered"
    with pytest.raises(NotFound, match="no delivery 99"):
        story.ledger.replay_delivery(99)


def test_the_same_object_twice_in_a_plan_is_refused_whole(story: Story) -> None:
    """A plan that would send one object twice to one place is a defect: nothing of it is kept."""
    rows = deliveries(story.job)
    with pytest.raises(Exception, match=r"(?i)unique"):
        story.ledger.plan(story.job, [*rows, dataclasses.replace(rows[0])])
    assert states(story) == []
    assert story.job_state() == "ready"
