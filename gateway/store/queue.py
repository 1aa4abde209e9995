"""The ledger's queue: what waits, whose turn it is, and whether there is memory for it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, case, func, select

from gateway.domain import schedule
from gateway.domain.crew import MEMORY, Room, not_now
from gateway.domain.job import ANY_DEVICE, Priority
from gateway.domain.schedule import Turn, Waiting
from gateway.domain.states import JobState
from gateway.store import schema

_JOBS = schema.jobs
_MEMORY = 3600.0  # seconds after which a sender counts as one that was never served
_TRIES = 20  # jobs that other workers may be taking this moment


def next_job(
    connection: Connection,
    turn: Turn,
    now: float,
    devices: Collection[str],
    least: Priority,
    most_mib: int | None = None,
) -> tuple[Row[Any], Turn] | None:
    """The row of the next job, locked, and the turn after it; none that will need more memory than ``most_mib``."""
    fits: tuple[ColumnElement[bool], ...] = (
        _JOBS.c.state == JobState.QUEUED.value,
        _JOBS.c.priority <= int(least),
        _JOBS.c.device.in_([ANY_DEVICE, *devices]),
    )
    if most_mib is not None:
        fits = (*fits, _JOBS.c.memory_mib.is_(None) | (_JOBS.c.memory_mib <= most_mib))
    taken: list[str] = []
    for _ in range(_TRIES):
        found = schedule.pick(_heads(connection, (*fits, _JOBS.c.id.not_in(taken)), now), turn, now)
        if found is None:
            return None
        chosen, after = found
        query = select(_JOBS).where(_JOBS.c.id == chosen.id, *fits).with_for_update(skip_locked=True)
        row = connection.execute(query).one_or_none()
        if row is not None:
            return row, after
        taken.append(chosen.id)
    return None


def why_not_now(connection: Connection, row: Row[Any], room: Room, now: float) -> str:
    """Why there is no memory yet for a job, beside those that run on the same host; empty where there is."""
    running = (_JOBS.c.state == JobState.RUNNING.value, _JOBS.c.host == room.host, _JOBS.c.host != "")
    found = connection.execute(select(_JOBS.c.memory_mib, _JOBS.c.held_mib).where(*running)).all()
    promised = sum(max((one.memory_mib or 0) - one.held_mib, 0) for one in found)
    waited = None if not row.waits.startswith(f"{MEMORY}:") else now - row.waits_since
    return not_now(row.memory_mib, room, promised, len(found), waited)


def all_waiting(connection: Connection, now: float) -> list[Waiting]:
    """Everything in the queue."""
    served = _served(connection, now)
    return [_waiting(row, served) for row in connection.execute(select(_JOBS).where(_JOBS.c.state == "queued")).all()]


def _heads(connection: Connection, fits: tuple[ColumnElement[bool], ...], now: float) -> list[Waiting]:
    """Of the most urgent priority, the first job of each sender and model."""
    first = select(func.min(_JOBS.c.priority)).where(*fits).scalar_subquery()
    order = (case((_JOBS.c.deadline.is_(None), 1), else_=0), _JOBS.c.deadline, _JOBS.c.created_at, _JOBS.c.id)
    place = func.row_number().over(partition_by=(_JOBS.c.sender, _JOBS.c.model_digest), order_by=order)
    ranked = select(_JOBS, place.label("place")).where(*fits, _JOBS.c.priority == first).subquery()
    found = connection.execute(select(ranked).where(ranked.c.place == 1)).all()
    served = _served(connection, now) if len({row.sender for row in found}) > 1 else {}
    return [_waiting(row, served) for row in found]


def _served(connection: Connection, now: float) -> dict[str, float]:
    """Sender -> when a job of it was started last, of those that were not long ago."""
    query = select(_JOBS.c.sender, func.max(_JOBS.c.started_at).label("at")).where(_JOBS.c.started_at > now - _MEMORY)
    return {row.sender: row.at for row in connection.execute(query.group_by(_JOBS.c.sender)).all()}


def _waiting(row: Row[Any], served: dict[str, float]) -> Waiting:
    return Waiting(
        id=row.id,
        priority=row.priority,
        sender=row.sender,
        model_digest=row.model_digest,
        deadline=row.deadline,
        created_at=row.created_at,
        served_at=served.get(row.sender, schedule.NEVER),
    )
