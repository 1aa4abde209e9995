"""Every pair of every state table, legal or not, against the real ledger: generated from the tables."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

import pytest

from gateway.domain import states
from gateway.domain.states import (
    DELIVERY_TRANSITIONS,
    INBOUND_TRANSITIONS,
    JOB_TRANSITIONS,
    STUDY_TRANSITIONS,
    DeliveryEvent,
    DeliveryState,
    IllegalTransition,
    InboundEvent,
    InboundState,
    JobEvent,
    JobState,
    StudyEvent,
    StudyState,
)
from tests.support.ledgers import InboundStory, Story, deliveries, happen, ways

TABLES = [
    (StudyState, StudyEvent, STUDY_TRANSITIONS, StudyState.OPEN, states.next_study_state),
    (JobState, JobEvent, JOB_TRANSITIONS, JobState.QUEUED, states.next_job_state),
    (DeliveryState, DeliveryEvent, DELIVERY_TRANSITIONS, DeliveryState.HELD, states.next_delivery_state),
    (InboundState, InboundEvent, INBOUND_TRANSITIONS, InboundState.RECEIVED, states.next_inbound_state),
]


@pytest.mark.parametrize(("kind", "events", "table", "start", "_step"), TABLES)
def test_every_state_can_be_reached(
    kind: type[Enum], events: type[Enum], table: dict, start: Enum, _step: object
) -> None:
    """No state is an island and no event is without use."""
    assert set(ways(table, start)) == set(kind)
    assert {event for _, event in table} == set(events)


@pytest.mark.parametrize(("kind", "events", "table", "_start", "step"), TABLES)
def test_the_table_is_all_there_is(kind: type[Enum], events: type[Enum], table: dict, _start: Enum, step) -> None:  # type: ignore[no-untyped-def]
    """A pair in the table gives its state, every other pair raises and names both."""
    for state in kind:
        for event in events:
            if (state, event) in table:
                assert step(state, event) is table[state, event]
            else:
                with pytest.raises(IllegalTransition, match=state.value):
                    step(state, event)


@pytest.mark.parametrize("event", StudyEvent)
@pytest.mark.parametrize("state", StudyState)
def test_studies(tmp_path: Path, state: StudyState, event: StudyEvent) -> None:
    """The ledger moves a study as the table says, and not at all where it says nothing."""
    story = Story(tmp_path)
    story.store()
    for step in ways(STUDY_TRANSITIONS, StudyState.OPEN)[state]:
        story.study_events[step]()
    assert story.study_state() == state.value
    happen(story.study_events, event)
    assert story.study_state() == STUDY_TRANSITIONS.get((state, event), state).value
    story.ledger.close()


@pytest.mark.parametrize("event", JobEvent)
@pytest.mark.parametrize("state", JobState)
def test_jobs(tmp_path: Path, state: JobState, event: JobEvent) -> None:
    """The ledger moves a job as the table says, and not at all where it says nothing."""
    story = Story(tmp_path)
    story.queue()
    for step in ways(JOB_TRANSITIONS, JobState.QUEUED)[state]:
        story.job_events[step]()
    assert story.job_state() == state.value
    happen(story.job_events, event)
    assert story.job_state() == JOB_TRANSITIONS.get((state, event), state).value
    story.ledger.close()


@pytest.mark.parametrize("event", DeliveryEvent)
@pytest.mark.parametrize("state", DeliveryState)
def test_deliveries(tmp_path: Path, state: DeliveryState, event: DeliveryEvent) -> None:
    """The ledger moves a message as the table says, and not at all where it says nothing."""
    story = Story(tmp_path)
    story.queue()
    for step in (JobEvent.CLAIMED, JobEvent.COMMITTED):
        story.job_events[step]()
    story.ledger.plan(story.job, deliveries(story.job))
    for event_before in ways(DELIVERY_TRANSITIONS, DeliveryState.HELD)[state]:
        story.delivery_events[event_before]()
    assert story.delivery_state() == state.value
    happen(story.delivery_events, event)
    assert story.delivery_state() == DELIVERY_TRANSITIONS.get((state, event), state).value
    story.ledger.close()


@pytest.mark.parametrize("event", InboundEvent)
@pytest.mark.parametrize("state", InboundState)
def test_inbound(tmp_path: Path, state: InboundState, event: InboundEvent) -> None:
    """The ledger moves a message from the EHR as the table says, and not at all where it says nothing."""
    story = InboundStory(tmp_path)
    for step in ways(INBOUND_TRANSITIONS, InboundState.RECEIVED)[state]:
        story.events[step]()
    assert story.state() == state.value
    if event is not InboundEvent.CONTRADICTED:  # that is found on arrival, before there is a row
        happen(story.events, event)
        assert story.state() == INBOUND_TRANSITIONS.get((state, event), state).value
    story.ledger.close()
