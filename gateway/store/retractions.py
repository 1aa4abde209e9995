"""The ledger's part for taking results back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, insert, select

from gateway.domain.errors import NotFound
from gateway.domain.ids import JobId
from gateway.domain.job import Delivery, DeliveryDraft, Job, Payload
from gateway.domain.ports import Clock
from gateway.domain.roles import NOTICES
from gateway.domain.states import DeliveryEvent, DeliveryState, JobEvent, JobState
from gateway.store import progress, rows, schema
from gateway.store.engine import reading, writing

_DELIVERIES, _JOBS = schema.deliveries, schema.jobs
_PLANNED = (JobState.DELIVERING.value, JobState.DELIVERED.value, JobState.UNDELIVERED.value)
_WITHDRAWN = (JobState.RETRACTING.value, JobState.RETRACTED.value, JobState.SUPERSEDED.value)


class Retractions:
    """Implements `gateway.domain.ports.RetractionLedger`."""

    engine: Any
    clock: Clock

    def job(self, job: JobId) -> Job:
        """One job; raises NotFound."""
        with reading(self.engine) as connection:
            row = connection.execute(select(_JOBS).where(_JOBS.c.id == job)).one_or_none()
        if row is None:
            raise NotFound(f"no job {job}")
        return rows.to_job(row)

    def has_build(self, digest: str) -> bool:
        """Whether any job was ever made for a model's build whose digest is this, or begins so."""
        query = select(_JOBS.c.id).where(_JOBS.c.model_digest.startswith(digest, autoescape=True)).limit(1)
        with reading(self.engine) as connection:
            return connection.execute(query).first() is not None

    def jobs_of_build(self, digest: str, since: float) -> Sequence[Job]:
        """Jobs of a model's build (its digest, or how that begins) made since a time and not withdrawn, oldest first."""
        query = (
            select(_JOBS)
            .where(_JOBS.c.model_digest.startswith(digest, autoescape=True), _JOBS.c.created_at >= since)
            .where(_JOBS.c.state.not_in(_WITHDRAWN))
            .order_by(_JOBS.c.created_at)
        )
        with reading(self.engine) as connection:
            return [rows.to_job(row) for row in connection.execute(query).all()]

    def deliveries_of(self, job: JobId) -> Sequence[Delivery]:
        """All deliveries of a job, oldest first."""
        query = select(_DELIVERIES).where(_DELIVERIES.c.job_id == job).order_by(_DELIVERIES.c.id)
        with reading(self.engine) as connection:
            return [rows.to_delivery(row) for row in connection.execute(query).all()]

    def retract(self, job: JobId, notices: Sequence[DeliveryDraft], reason: str) -> bool:
        """Withdraws a result: what has not left stays here, and the notices go out. False where it is withdrawn already."""
        now = self.clock.now()
        with writing(self.engine) as connection:
            row = connection.execute(select(_JOBS).where(_JOBS.c.id == job)).one()
            if row.state in _WITHDRAWN:
                return False
            refusal = row.state == JobState.QUARANTINED.value and _was_told(connection, job)
            planned = refusal or row.state in _PLANNED
            event = JobEvent.REFUSAL_RETRACTED if refusal else JobEvent.RETRACTED
            rows.move_job(connection, row, event, reason=reason)
            rows.tell(connection, now, row.study_uid, "result withdrawn", reason, job)
            if planned:
                self._bury_dead(connection, job, now)
                if notices:
                    values = [rows.delivery_values(notice, now) for notice in notices]
                    connection.execute(insert(_DELIVERIES), values)
                    self._remember(connection, job, notices)
                progress.follow_up(connection, job, now)
            return True

    def _remember(self, connection: Connection, job: JobId, notices: Sequence[DeliveryDraft]) -> None:
        """A note that a PACS sends back is recognised as ours."""
        own = schema.own_objects
        for uid in {notice.key for notice in notices if notice.payload is Payload.OBJECT}:
            if connection.execute(select(own.c.job_id).where(own.c.sop_instance_uid == uid)).first() is None:
                connection.execute(insert(own).values(sop_instance_uid=uid, job_id=job))

    def _bury_dead(self, connection: Connection, job: JobId, now: float) -> None:
        """What was given up must not be replayed any more."""
        table = _DELIVERIES
        dead = select(table).where(
            table.c.job_id == job, table.c.state == DeliveryState.DEAD.value, table.c.role.not_in(NOTICES)
        )
        for row in connection.execute(dead).all():
            progress.move(connection, row, DeliveryEvent.WITHDRAWN)
            progress.remark(connection, row, "withdrawn", "its result was taken back", now)


def _was_told(connection: Connection, job: JobId) -> bool:
    """Whether a refused job has deliveries: somebody may know that its images were not processed."""
    return connection.execute(select(_DELIVERIES.c.id).where(_DELIVERIES.c.job_id == job)).first() is not None
