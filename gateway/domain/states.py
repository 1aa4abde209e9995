"""How studies, jobs and deliveries move.

Everything about state lives in the tables here: the ledger applies them, docs/architecture.md draws them and the
property tests walk them. A pair that is not in a table is a defect, and raises.
"""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

from gateway.domain.errors import HilumError


class StudyState(Enum):
    """Where a study stands."""

    OPEN = "open"  # instances may still come
    COMPLETE = "complete"  # released by evidence, not yet routed
    ROUTED = "routed"  # at least one job was made
    UNROUTED = "unrouted"  # no rule or no model wants it; the reason is stored
    QUARANTINED = "quarantined"  # held back for a reason a person must see


class StudyEvent(Enum):
    """What can happen to a study."""

    INSTANCE_STORED = "instance stored"
    RELEASED = "released"
    JOBS_MADE = "jobs made"
    NOTHING_TO_RUN = "nothing to run"
    HELD_BACK = "held back"
    CONTEXT_CHANGED = "context changed"
    REPLAYED = "replayed"


class JobState(Enum):
    """Where a job stands."""

    QUEUED = "queued"  # waiting for a worker
    RUNNING = "running"  # leased by a worker
    READY = "ready"  # result objects durable, deliveries not yet planned
    DELIVERING = "delivering"  # in the outbox
    DELIVERED = "delivered"  # every destination has answered for good, all of them yes
    UNDELIVERED = "undelivered"  # at least one delivery is a dead letter
    QUARANTINED = "quarantined"  # refused by manifest or gate; the reason is stored
    DEAD = "dead"  # attempts used up; the reason is stored
    SUPERSEDED = "superseded"  # a newer input set of the same series took its place before it ran
    RETRACTING = "retracting"  # withdrawn; whoever got something of it is being told
    RETRACTED = "retracted"  # withdrawn; everybody who got something of it has been told


class JobEvent(Enum):
    """What can happen to a job."""

    CLAIMED = "claimed"
    LEASE_EXPIRED = "lease expired"
    ATTEMPT_FAILED = "attempt failed"
    EXHAUSTED = "attempts used up"
    COMMITTED = "result committed"
    REFUSED = "refused"
    PLANNED = "deliveries planned"
    ALL_DELIVERED = "all delivered"
    SOME_DEAD = "some delivery dead"
    REPLAYED = "replayed"
    REPORTED = "reported again"
    OVERTAKEN = "overtaken"
    CANCELLED = "cancelled"
    RETRACTED = "retracted"
    REFUSAL_RETRACTED = "refusal retracted"


class DeliveryState(Enum):
    """Where one object or message stands on its way to one destination."""

    HELD = "held"  # waits until the objects it speaks of have arrived
    WAITING = "waiting"  # due at next_try
    SENDING = "sending"  # leased by a dispatcher
    STORED = "stored"  # the destination says that it has it; the proof is due at next_try
    DELIVERED = "delivered"  # the destination has it, proven as the site wants it proven
    SUBSTITUTED = "substituted"  # the destination does not take this form; another is on its way instead
    WITHDRAWN = "withdrawn"  # its result was taken back, or a correction takes its place: it does not go again
    DEAD = "dead"  # given up; replayable


class DeliveryEvent(Enum):
    """What can happen to a delivery."""

    UNHELD = "unheld"
    CLAIMED = "claimed"
    LEASE_EXPIRED = "lease expired"
    ACCEPTED = "accepted"
    DEFERRED = "deferred"
    REJECTED = "rejected"
    TAKEN = "stored, proof to come"
    VERIFIED = "verified"
    MISSING = "not there"
    SUBSTITUTED = "form not taken"
    WITHDRAWN = "withdrawn"
    REPLAYED = "replayed"


class InboundState(Enum):
    """Where a message from the EHR stands; all of them are kept."""

    RECEIVED = "received"  # durable and acknowledged, not yet read
    APPLIED = "applied"  # what it says counts
    IGNORED = "ignored"  # it says nothing that is of use here
    UNREADABLE = "unreadable"  # it is about something, but does not say what
    CONFLICT = "conflict"  # its sender has used its MSH-10 for another message before


class InboundEvent(Enum):
    """What can happen to a message from the EHR."""

    UNDERSTOOD = "understood"
    OF_NO_USE = "of no use"
    NOT_UNDERSTOOD = "not understood"
    CONTRADICTED = "contradicted"
    REPLAYED = "replayed"


class IllegalTransition(HilumError):
    """A state machine was asked for a move it does not know."""


STUDY_TRANSITIONS: dict[tuple[StudyState, StudyEvent], StudyState] = {
    (StudyState.OPEN, StudyEvent.INSTANCE_STORED): StudyState.OPEN,
    (StudyState.OPEN, StudyEvent.RELEASED): StudyState.COMPLETE,
    (StudyState.OPEN, StudyEvent.HELD_BACK): StudyState.QUARANTINED,  # incomplete at the upper limit of waiting
    (StudyState.COMPLETE, StudyEvent.INSTANCE_STORED): StudyState.OPEN,
    (StudyState.COMPLETE, StudyEvent.JOBS_MADE): StudyState.ROUTED,
    (StudyState.COMPLETE, StudyEvent.NOTHING_TO_RUN): StudyState.UNROUTED,
    (StudyState.COMPLETE, StudyEvent.HELD_BACK): StudyState.QUARANTINED,
    # A late image opens the study again: a new input set, a new result version.
    (StudyState.ROUTED, StudyEvent.INSTANCE_STORED): StudyState.OPEN,
    (StudyState.UNROUTED, StudyEvent.INSTANCE_STORED): StudyState.OPEN,
    (StudyState.QUARANTINED, StudyEvent.INSTANCE_STORED): StudyState.OPEN,
    # The EHR has told more about it: the rules are asked once more.
    (StudyState.ROUTED, StudyEvent.CONTEXT_CHANGED): StudyState.COMPLETE,
    (StudyState.UNROUTED, StudyEvent.CONTEXT_CHANGED): StudyState.COMPLETE,
    (StudyState.ROUTED, StudyEvent.REPLAYED): StudyState.COMPLETE,
    (StudyState.UNROUTED, StudyEvent.REPLAYED): StudyState.COMPLETE,
    (StudyState.QUARANTINED, StudyEvent.REPLAYED): StudyState.COMPLETE,
}

JOB_TRANSITIONS: dict[tuple[JobState, JobEvent], JobState] = {
    (JobState.QUEUED, JobEvent.CLAIMED): JobState.RUNNING,
    (JobState.QUEUED, JobEvent.OVERTAKEN): JobState.SUPERSEDED,
    (JobState.QUEUED, JobEvent.CANCELLED): JobState.DEAD,
    (JobState.QUEUED, JobEvent.REFUSED): JobState.QUARANTINED,  # no worker could do it for too long
    (JobState.RUNNING, JobEvent.CANCELLED): JobState.DEAD,
    (JobState.RUNNING, JobEvent.LEASE_EXPIRED): JobState.QUEUED,
    (JobState.RUNNING, JobEvent.ATTEMPT_FAILED): JobState.QUEUED,
    (JobState.RUNNING, JobEvent.EXHAUSTED): JobState.DEAD,
    (JobState.RUNNING, JobEvent.COMMITTED): JobState.READY,
    (JobState.RUNNING, JobEvent.REFUSED): JobState.QUARANTINED,
    (JobState.READY, JobEvent.PLANNED): JobState.DELIVERING,
    (JobState.READY, JobEvent.REFUSED): JobState.QUARANTINED,  # no valid message can be written about it
    (JobState.DELIVERING, JobEvent.ALL_DELIVERED): JobState.DELIVERED,
    (JobState.DELIVERING, JobEvent.SOME_DEAD): JobState.UNDELIVERED,
    (JobState.UNDELIVERED, JobEvent.REPLAYED): JobState.DELIVERING,
    # A confirmation, correction or cancellation is one more message about a result that has left already.
    (JobState.DELIVERING, JobEvent.REPORTED): JobState.DELIVERING,
    (JobState.DELIVERED, JobEvent.REPORTED): JobState.DELIVERING,
    (JobState.UNDELIVERED, JobEvent.REPORTED): JobState.DELIVERING,
    (JobState.QUARANTINED, JobEvent.REPLAYED): JobState.QUEUED,
    (JobState.DEAD, JobEvent.REPLAYED): JobState.QUEUED,
    # Withdrawn before anything of it left: nobody has to be told, and it never runs again.
    (JobState.QUEUED, JobEvent.RETRACTED): JobState.RETRACTED,
    (JobState.RUNNING, JobEvent.RETRACTED): JobState.RETRACTED,
    (JobState.READY, JobEvent.RETRACTED): JobState.RETRACTED,
    (JobState.QUARANTINED, JobEvent.RETRACTED): JobState.RETRACTED,
    (JobState.DEAD, JobEvent.RETRACTED): JobState.RETRACTED,
    # That images were not processed was told, and does not hold any more.
    (JobState.QUARANTINED, JobEvent.REFUSAL_RETRACTED): JobState.RETRACTING,
    (JobState.DELIVERING, JobEvent.RETRACTED): JobState.RETRACTING,
    (JobState.DELIVERED, JobEvent.RETRACTED): JobState.RETRACTING,
    (JobState.UNDELIVERED, JobEvent.RETRACTED): JobState.RETRACTING,
    (JobState.RETRACTING, JobEvent.REPORTED): JobState.RETRACTING,  # the report that cancels it
    (JobState.RETRACTING, JobEvent.ALL_DELIVERED): JobState.RETRACTED,
}

DELIVERY_TRANSITIONS: dict[tuple[DeliveryState, DeliveryEvent], DeliveryState] = {
    (DeliveryState.HELD, DeliveryEvent.UNHELD): DeliveryState.WAITING,
    (DeliveryState.WAITING, DeliveryEvent.CLAIMED): DeliveryState.SENDING,
    (DeliveryState.SENDING, DeliveryEvent.LEASE_EXPIRED): DeliveryState.WAITING,
    (DeliveryState.SENDING, DeliveryEvent.ACCEPTED): DeliveryState.DELIVERED,
    (DeliveryState.SENDING, DeliveryEvent.DEFERRED): DeliveryState.WAITING,
    (DeliveryState.SENDING, DeliveryEvent.REJECTED): DeliveryState.DEAD,
    (DeliveryState.DEAD, DeliveryEvent.REPLAYED): DeliveryState.WAITING,
    # Where the destination must prove that it has the object: an answer to C-STORE or STOW-RS is a promise, no proof.
    (DeliveryState.SENDING, DeliveryEvent.TAKEN): DeliveryState.STORED,
    (DeliveryState.STORED, DeliveryEvent.VERIFIED): DeliveryState.DELIVERED,
    (DeliveryState.STORED, DeliveryEvent.MISSING): DeliveryState.WAITING,
    (DeliveryState.STORED, DeliveryEvent.REJECTED): DeliveryState.DEAD,
    (DeliveryState.SENDING, DeliveryEvent.SUBSTITUTED): DeliveryState.SUBSTITUTED,
    (DeliveryState.HELD, DeliveryEvent.WITHDRAWN): DeliveryState.WITHDRAWN,
    (DeliveryState.WAITING, DeliveryEvent.WITHDRAWN): DeliveryState.WITHDRAWN,
    # A message whose application has not answered yet, and that is about somebody else by now: it must not go again.
    (DeliveryState.STORED, DeliveryEvent.WITHDRAWN): DeliveryState.WITHDRAWN,
    (DeliveryState.DEAD, DeliveryEvent.WITHDRAWN): DeliveryState.WITHDRAWN,
}


INBOUND_TRANSITIONS: dict[tuple[InboundState, InboundEvent], InboundState] = {
    (InboundState.RECEIVED, InboundEvent.UNDERSTOOD): InboundState.APPLIED,
    (InboundState.RECEIVED, InboundEvent.OF_NO_USE): InboundState.IGNORED,
    (InboundState.RECEIVED, InboundEvent.NOT_UNDERSTOOD): InboundState.UNREADABLE,
    (InboundState.RECEIVED, InboundEvent.CONTRADICTED): InboundState.CONFLICT,
    (InboundState.IGNORED, InboundEvent.REPLAYED): InboundState.RECEIVED,
    (InboundState.UNREADABLE, InboundEvent.REPLAYED): InboundState.RECEIVED,
    (InboundState.CONFLICT, InboundEvent.REPLAYED): InboundState.RECEIVED,
}


def next_study_state(state: StudyState, event: StudyEvent) -> StudyState:
    """The state a study has after ``event``; raises `IllegalTransition` where the table has none."""
    return _step(STUDY_TRANSITIONS, state, event)


def next_job_state(state: JobState, event: JobEvent) -> JobState:
    """The state a job has after ``event``; raises `IllegalTransition` where the table has none."""
    return _step(JOB_TRANSITIONS, state, event)


def next_delivery_state(state: DeliveryState, event: DeliveryEvent) -> DeliveryState:
    """The state a delivery has after ``event``; raises `IllegalTransition` where the table has none."""
    return _step(DELIVERY_TRANSITIONS, state, event)


def next_inbound_state(state: InboundState, event: InboundEvent) -> InboundState:
    """The state a message has after ``event``; raises `IllegalTransition` where the table has none."""
    return _step(INBOUND_TRANSITIONS, state, event)


_S = TypeVar("_S", bound=Enum)
_E = TypeVar("_E", bound=Enum)


def _step(table: dict[tuple[_S, _E], _S], state: _S, event: _E) -> _S:
    try:
        return table[state, event]
    except KeyError:
        raise IllegalTransition(f"{state.value!r} does not know {event.value!r}") from None
