"""The ledger's part about workers: who is there, and which jobs none of them can do."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from gateway.domain.crew import HERE, NO_WORKER, WorkerState, nobody_can
from gateway.domain.ids import JobId
from gateway.domain.messages import revive
from gateway.domain.ports import Clock
from gateway.domain.states import JobState
from gateway.store import rows, schema
from gateway.store.engine import reading, writing

_JOBS, _WORKERS = schema.jobs, schema.workers
_QUEUED = _JOBS.c.state == JobState.QUEUED.value
_STRANDED = "NO\\_%"  # the codes of `nobody_can`


class Crew:
    """Who is there."""

    engine: Any
    clock: Clock

    def attend(self, state: WorkerState) -> None:
        """A worker says that it is there; those that were gone long ago are forgotten."""
        now = self.clock.now()
        with writing(self.engine) as connection:
            connection.execute(
                delete(_WORKERS).where((_WORKERS.c.owner == state.owner) | (_WORKERS.c.seen_at < now - 60 * HERE))
            )
            values = {"owner": state.owner, "seen_at": now, "state": dataclasses.asdict(state)}
            connection.execute(insert(_WORKERS).values(**values))

    def leave(self, owner: str) -> None:
        """A worker has ended."""
        with writing(self.engine) as connection:
            connection.execute(delete(_WORKERS).where(_WORKERS.c.owner == owner))

    def workers(self) -> Sequence[WorkerState]:
        """Those that are there."""
        with reading(self.engine) as connection:
            return _here(connection, self.clock.now())

    def mark_stranded(self, after: float) -> Sequence[tuple[JobId, str]]:
        """Writes down why jobs wait that no worker can do; returns those that have waited so for longer than this, in seconds,
        while workers were there. A job that has just come is left alone: workers may just be starting."""
        now = self.clock.now()
        with writing(self.engine) as connection:
            crew = _here(connection, now)
            kinds = select(_JOBS.c.device, _JOBS.c.memory_mib).where(_QUEUED).distinct()
            for device, needs in connection.execute(kinds).all():
                same = _QUEUED & (_JOBS.c.device == device) & _JOBS.c.memory_mib.is_not_distinct_from(needs)
                _mark(connection, same, nobody_can(device, needs, crew), now)
            over = _QUEUED & _JOBS.c.waits.like(_STRANDED, escape="\\") & (_JOBS.c.waits_since < now - after)
            query = select(_JOBS.c.id, _JOBS.c.waits).where(over, _JOBS.c.waits.not_like(f"{NO_WORKER}:%"))
            return [(JobId(row.id), row.waits) for row in connection.execute(query).all()]


def _here(connection: Connection, now: float) -> list[WorkerState]:
    query = select(_WORKERS.c.state).where(_WORKERS.c.seen_at >= now - HERE).order_by(_WORKERS.c.owner)
    return [revive(WorkerState, state) for state in connection.execute(query).scalars()]


def _mark(connection: Connection, same: ColumnElement[bool], why: str, now: float) -> None:
    """Jobs of one kind wait for this reason, or for none of this sort any more."""
    if not why:
        stranded = same & _JOBS.c.waits.like(_STRANDED, escape="\\")
        connection.execute(update(_JOBS).where(stranded).values(waits="", waits_since=None))
        return
    code = why.partition(":")[0]
    fresh = same & (_JOBS.c.created_at < now - HERE / 2) & _JOBS.c.waits.not_like(f"{code}:%")
    for row in connection.execute(select(_JOBS).where(fresh)).all():
        wait(connection, row, why, now)


def wait(connection: Connection, row: Any, why: str, now: float) -> None:
    """Writes down why a queued job waits, and since when."""
    connection.execute(update(_JOBS).where(_JOBS.c.id == row.id, _QUEUED).values(waits=why, waits_since=now))
    rows.tell(connection, now, row.study_uid, "job waits", why, row.id)
