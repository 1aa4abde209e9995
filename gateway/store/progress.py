"""How a delivery moves, what the study's story says of it, and what follows from it for its job."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, select, update

from gateway.domain.job import Payload
from gateway.domain.roles import NOTICES
from gateway.domain.states import DeliveryEvent, DeliveryState, JobEvent, JobState, next_delivery_state
from gateway.store import rows, schema

_DELIVERIES, _JOBS = schema.deliveries, schema.jobs

ENDED = tuple(
    state.value
    for state in (
        DeliveryState.DELIVERED, DeliveryState.SUBSTITUTED, DeliveryState.WITHDRAWN, DeliveryState.DEAD,
    )
)  # fmt: skip
"""States of a delivery that nothing but a person moves on."""

_WHAT = {
    DeliveryEvent.ACCEPTED: "delivered",
    DeliveryEvent.VERIFIED: "delivered",
    DeliveryEvent.TAKEN: "stored",
    DeliveryEvent.DEFERRED: "deferred",
    DeliveryEvent.REJECTED: "dead letter",
    DeliveryEvent.MISSING: "sent again",
    DeliveryEvent.SUBSTITUTED: "other form sent",
    DeliveryEvent.WITHDRAWN: "withdrawn",
}


def move(connection: Connection, row: Row[Any], event: DeliveryEvent, **values: Any) -> DeliveryState:
    """Moves a delivery by the table; raises IllegalTransition."""
    state = next_delivery_state(DeliveryState(row.state), event)
    connection.execute(update(_DELIVERIES).where(_DELIVERIES.c.id == row.id).values(state=state.value, **values))
    return state


def tell(connection: Connection, row: Row[Any], event: DeliveryEvent, answer: str, now: float) -> None:
    """Adds a line to the study's story; the same answer again to the same trouble is no news."""
    passing = event in (DeliveryEvent.DEFERRED, DeliveryEvent.MISSING)
    if passing and answer == row.last_answer and row.attempts > 1:
        return
    remark(connection, row, _WHAT[event], answer, now)


def remark(connection: Connection, row: Row[Any], what: str, detail: str, now: float) -> None:
    """Adds a line about a delivery to the study's story."""
    study = connection.execute(select(_JOBS.c.study_uid).where(_JOBS.c.id == row.job_id)).scalar_one()
    text = f"{row.role} to {row.destination}: {detail}"
    rows.tell(connection, now, study, what, text, row.job_id, row.id)


def follow_up(connection: Connection, job: str, now: float) -> None:
    """What the end of a delivery means for the rest of its job."""
    row = connection.execute(select(_JOBS).where(_JOBS.c.id == job)).one()
    if row.state in (JobState.RETRACTING.value, JobState.RETRACTED.value):
        _withdraw_waiting(connection, job, now)
    _release_held(connection, job, now)
    _roll_up(connection, row)


def _withdraw_waiting(connection: Connection, job: str, now: float) -> None:
    """Of a withdrawn result nothing is sent any more but the notices that it is withdrawn."""
    table = _DELIVERIES
    waiting = select(table).where(
        table.c.job_id == job,
        table.c.role.not_in(NOTICES),
        table.c.state.in_([DeliveryState.HELD.value, DeliveryState.WAITING.value]),
    )
    for row in connection.execute(waiting).all():
        move(connection, row, DeliveryEvent.WITHDRAWN)
        remark(connection, row, "withdrawn", "its result was taken back", now)


def _release_held(connection: Connection, job: str, now: float) -> None:
    """Messages go when every object they speak of is proven to be there, or is a dead letter that somebody is told of."""
    table = _DELIVERIES
    of_job = table.c.job_id == job
    on_the_way = select(table.c.id).where(of_job, table.c.payload == Payload.OBJECT.value, table.c.state.not_in(ENDED))
    if connection.execute(on_the_way).first() is None:
        held = select(table).where(of_job, table.c.state == DeliveryState.HELD.value)
        for row in connection.execute(held).all():
            move(connection, row, DeliveryEvent.UNHELD, next_try=now)


def _roll_up(connection: Connection, row: Row[Any]) -> None:
    states = set(connection.execute(select(_DELIVERIES.c.state).where(_DELIVERIES.c.job_id == row.id)).scalars())
    if not states <= set(ENDED):
        return
    dead = DeliveryState.DEAD.value in states
    if row.state == JobState.DELIVERING.value:
        rows.move_job(connection, row, JobEvent.SOME_DEAD if dead else JobEvent.ALL_DELIVERED)
    elif row.state == JobState.RETRACTING.value and not dead and not _report_to_come(connection, row.id):
        rows.move_job(connection, row, JobEvent.ALL_DELIVERED)


def _report_to_come(connection: Connection, job: str) -> bool:
    """Whether a report that was asked for, such as a cancellation, is not in the outbox yet."""
    table = schema.editions
    asked = select(table.c.number).where(table.c.job_id == job, table.c.state == "asked")
    return connection.execute(asked).first() is not None
