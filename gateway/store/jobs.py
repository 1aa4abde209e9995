"""The ledger's part for workers: claim, heartbeat, commit, fail. Every step checks the fence."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from gateway.domain.bell import queue_of
from gateway.domain.crew import MEMORY, Room
from gateway.domain.errors import LeaseLost, NotFound
from gateway.domain.estimate import Run
from gateway.domain.ids import JobId
from gateway.domain.job import Claim, Priority
from gateway.domain.messages import Outcome
from gateway.domain.ports import Clock
from gateway.domain.schedule import FRESH, Turn
from gateway.domain.states import JobEvent, JobState
from gateway.domain.study import Instance
from gateway.store import queue, rows, schema
from gateway.store.crew import wait
from gateway.store.engine import DatabaseClock, LeaseClock, reading, writing
from gateway.store.indexing import forget_results
from gateway.store.runs import estimate_of, learn

_JOBS = schema.jobs

_UNHEARD = (
    select(_JOBS.c.id, _JOBS.c.rings, _JOBS.c.device, _JOBS.c.priority)
    .where(_JOBS.c.state == JobState.QUEUED.value, _JOBS.c.next_ring <= bindparam("now"))
    .order_by(_JOBS.c.priority, _JOBS.c.created_at)
    .limit(bindparam("most"))
)


class Jobs:
    """Implements `gateway.domain.ports.JobLedger`."""

    engine: Any
    clock: Clock
    lease_clock: LeaseClock | DatabaseClock
    max_failed: int
    max_lost: int

    def claim(
        self,
        owner: str,
        lease: float,
        *,
        turn: Turn = FRESH,
        devices: Collection[str] = ("cpu",),
        least: Priority = Priority.OFF_PEAK,
        room: Room | None = None,
    ) -> Claim | None:
        """The next job (`gateway.domain.schedule`) for one of these devices and of at least this priority, or nothing. Where
        there is no ``room`` for it yet, it waits, and so does the worker: what comes after it does not overtake it."""
        now = self.clock.now()
        with writing(self.engine) as connection:
            found = queue.next_job(connection, turn, now, devices, least, room.total_mib if room else None)
            if found is None:
                return None
            row, after = found
            why = queue.why_not_now(connection, row, room, now) if room else ""
            if why:
                if not row.waits.startswith(f"{MEMORY}:"):
                    wait(connection, row, why, now)
                return None
            values = self._lease(owner, lease) | {"fence": row.fence + 1, "started_at": now, "finished_at": None}
            values |= {"waits": "", "waits_since": None, "held_mib": 0}
            rows.move_job(connection, row, JobEvent.CLAIMED, host=room.host if room else "", **values)
            rows.tell(connection, now, row.study_uid, "job started", f"attempt {row.fence + 1}", row.id)
            job = rows.to_job(self._row(connection, JobId(row.id)))
            expected = estimate_of(connection, row.model_digest, row.voxels)
        return Claim(job=job, fence=job.fence, turn=after, expected=expected)

    def heartbeat(
        self, claim: Claim, lease: float, stage: str = "", fraction: float | None = None, held_mib: int = 0
    ) -> None:
        """Prolongs the lease, and says how far the job is and what its process holds; raises LeaseLost."""
        with writing(self.engine) as connection:
            held = connection.execute(
                update(_JOBS)
                .where(
                    _JOBS.c.id == claim.job.id, _JOBS.c.fence == claim.fence, _JOBS.c.state == JobState.RUNNING.value
                )
                .values(lease_until=self.lease_clock.now() + lease, stage=stage, fraction=fraction, held_mib=held_mib)
            )
        if not held.rowcount:
            raise LeaseLost(f"job {claim.job.id} is no longer ours")

    def commit(self, claim: Claim, outcome: Outcome, peak_mib: int = 0) -> None:
        """RUNNING -> READY, or QUARANTINED for a refusal; raises LeaseLost. Safe to repeat after an unknown commit.

        What a result took is kept for the estimates of others; ``peak_mib`` is the most that its process held."""
        now = self.clock.now()
        with writing(self.engine) as connection:
            row = self._row(connection, claim.job.id)
            if row.fence == claim.fence and row.state != JobState.RUNNING.value and row.outcome is not None:
                return  # our own commit arrived, only its answer was lost
            self._held(row, claim)
            refused = outcome.status != "complete"
            event = JobEvent.REFUSED if refused else JobEvent.COMMITTED
            told = refused and bool(outcome.refusal)
            values = {
                "outcome": rows.outcome_json(outcome),
                "reason": outcome.reason,
                "finished_at": now,
                "untold": int(told),
            }
            rows.move_job(connection, row, event, **values)
            self._remember_objects(connection, row.id, outcome)
            if not refused:
                run = Run(voxels=row.voxels, seconds=now - row.started_at, peak_mib=peak_mib)
                learn(connection, row.model_digest, run, now)
            forget_results(connection, row.id)  # of a result that was held back and made anew
            what = "job quarantined" if refused else "result ready"
            detail = f"{outcome.reason_code}: {outcome.reason}" if refused else f"{len(outcome.objects)} objects"
            rows.tell(connection, now, row.study_uid, what, detail, row.id)

    def fail(self, claim: Claim, reason: str, *, permanent: bool = False) -> JobState:
        """The attempt failed: QUEUED again, or DEAD when attempts are used up or trying again is useless; raises LeaseLost."""
        with writing(self.engine) as connection:
            row = self._row(connection, claim.job.id)
            self._held(row, claim)
            failed = row.attempts_failed + 1
            over = permanent or failed >= self.max_failed
            event = JobEvent.EXHAUSTED if over else JobEvent.ATTEMPT_FAILED
            return self._end_attempt(connection, row, event, reason, attempts_failed=failed)

    def give_back(self, claim: Claim) -> None:
        """The worker stops: QUEUED again, no attempt counted."""
        with writing(self.engine) as connection:
            row = self._row(connection, claim.job.id)
            if row.fence == claim.fence and row.state == JobState.RUNNING.value:
                self._end_attempt(connection, row, JobEvent.LEASE_EXPIRED, "the worker was stopped")

    def take_back(self, owner: str | None = None) -> Sequence[JobId]:
        """Jobs whose lease is over, or all of one owner that is known to be gone: QUEUED again, or DEAD after too many losses."""
        over = (_JOBS.c.lease_epoch != self.lease_clock.epoch) | (_JOBS.c.lease_until < self.lease_clock.now())
        lost = over if owner is None else _JOBS.c.owner == owner
        taken = []
        with writing(self.engine) as connection:
            query = select(_JOBS).where(_JOBS.c.state == JobState.RUNNING.value, lost).with_for_update(skip_locked=True)
            for row in connection.execute(query).all():
                count = row.attempts_lost + 1
                event = JobEvent.EXHAUSTED if count >= self.max_lost else JobEvent.LEASE_EXPIRED
                self._end_attempt(connection, row, event, "the worker was lost", attempts_lost=count)
                taken.append(JobId(row.id))
        return taken

    def unheard(self, limit: int, back_off: float) -> Sequence[tuple[JobId, str]]:
        """Queued jobs to ring for now, and on which queue: each rings at once, then less and less often."""
        now = self.clock.now()
        these = {"now": now, "most": limit}
        with reading(self.engine) as connection:  # a look several times a second must not keep writers waiting
            if connection.execute(_UNHEARD, these).first() is None:
                return []
        with writing(self.engine) as connection:
            due = connection.execute(_UNHEARD, these).all()
            for row in due:
                wait = back_off * 2 ** min(row.rings, 5)
                connection.execute(
                    update(_JOBS).where(_JOBS.c.id == row.id).values(rings=row.rings + 1, next_ring=now + wait)
                )
        return [(JobId(row.id), queue_of(row.device, Priority(row.priority))) for row in due]

    def input_instances(self, job: JobId) -> Sequence[Instance]:
        """The instances of a job's input set."""
        inputs, instances = schema.job_inputs, schema.instances
        query = select(instances).join(inputs, inputs.c.sop_instance_uid == instances.c.sop_instance_uid)
        with reading(self.engine) as connection:
            return [rows.to_instance(row) for row in connection.execute(query.where(inputs.c.job_id == job)).all()]

    def replay_job(self, job: JobId) -> None:
        """A dead or quarantined job gets all its attempts again; raises NotFound and IllegalTransition."""
        with writing(self.engine) as connection:
            row = self._row(connection, job)
            rows.move_job(
                connection,
                row,
                JobEvent.REPLAYED,
                attempts_failed=0,
                attempts_lost=0,
                outcome=None,
                untold=0,
                next_ring=0,
                rings=0,
                waits="",
                waits_since=None,
            )
            rows.tell(connection, self.clock.now(), row.study_uid, "job replayed", "by request", job)

    def cancel_job(self, job: JobId) -> None:
        """A queued or running job is dead by request; its worker's next heartbeat loses the lease and ends the model.

        Raises NotFound, and IllegalTransition where there is nothing left to cancel. It can be replayed.
        """
        with writing(self.engine) as connection:
            self._end_attempt(connection, self._row(connection, job), JobEvent.CANCELLED, "cancelled by request")

    def _lease(self, owner: str, lease: float) -> dict[str, Any]:
        return {"owner": owner, "lease_epoch": self.lease_clock.epoch, "lease_until": self.lease_clock.now() + lease}

    def _row(self, connection: Connection, job: JobId) -> Row[Any]:
        row = connection.execute(select(_JOBS).where(_JOBS.c.id == job).with_for_update()).one_or_none()
        if row is None:
            raise NotFound(f"no job {job}")
        return row

    def _held(self, row: Row[Any], claim: Claim) -> None:
        if row.fence != claim.fence or row.state != JobState.RUNNING.value:
            raise LeaseLost(f"job {claim.job.id} is no longer ours")

    def _end_attempt(
        self, connection: Connection, row: Row[Any], event: JobEvent, reason: str, **counts: int
    ) -> JobState:
        now = self.clock.now()
        state = rows.move_job(connection, row, event, reason=reason, finished_at=now, next_ring=now, rings=0, **counts)
        what = "job dead" if state is JobState.DEAD else "attempt ended"
        rows.tell(connection, now, row.study_uid, what, reason, row.id)
        return state

    def _remember_objects(self, connection: Connection, job: str, outcome: Outcome) -> None:
        own = schema.own_objects
        for item in outcome.objects:
            known = select(own.c.job_id).where(own.c.sop_instance_uid == item.sop_instance_uid)
            if connection.execute(known).first() is None:
                connection.execute(insert(own).values(sop_instance_uid=item.sop_instance_uid, job_id=job))
