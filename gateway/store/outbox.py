"""The ledger's part for delivery: one row for each object or message and destination."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from gateway.domain.errors import NotFound
from gateway.domain.ids import DestinationName, JobId
from gateway.domain.job import Delivery, DeliveryDraft, Job, Payload, Receipt, Verdict
from gateway.domain.ports import Clock
from gateway.domain.states import DeliveryEvent, DeliveryState, JobEvent, JobState, next_delivery_state
from gateway.store import rows, schema
from gateway.store.context import may_leave
from gateway.store.engine import LeaseClock, reading, writing

_DELIVERIES, _JOBS = schema.deliveries, schema.jobs
_TERMINAL = (DeliveryState.DELIVERED.value, DeliveryState.DEAD.value)


class Outbox:
    """Implements `gateway.domain.ports.OutboxLedger`."""

    engine: Any
    clock: Clock
    lease_clock: LeaseClock

    def ready_jobs(self) -> Sequence[Job]:
        """Jobs whose results wait to be planned, oldest first."""
        query = (
            select(_JOBS)
            .where(_JOBS.c.state == JobState.READY.value, may_leave(_JOBS.c.id))
            .order_by(_JOBS.c.finished_at)
        )
        with reading(self.engine) as connection:
            return [rows.to_job(row) for row in connection.execute(query).all()]

    def plan(self, job: JobId, drafts: Sequence[DeliveryDraft]) -> None:
        """READY -> DELIVERING with its outbox rows; does nothing for a job that is planned already."""
        now = self.clock.now()
        with writing(self.engine) as connection:
            row = connection.execute(select(_JOBS).where(_JOBS.c.id == job)).one()
            if row.state != JobState.READY.value:
                return
            rows.move_job(connection, row, JobEvent.PLANNED)
            if drafts:
                connection.execute(insert(_DELIVERIES), [_values(draft, now) for draft in drafts])
            names = (
                ", ".join(sorted({draft.destination for draft in drafts})) or "nowhere: the rule names no destination"
            )
            rows.tell(connection, now, row.study_uid, "deliveries planned", f"{len(drafts)} to {names}", job)
            self._release_held(connection, job)  # a message may have no object to wait for
            self._roll_up(connection, job)

    def hold_back(self, job: JobId, reason: str) -> None:
        """READY -> QUARANTINED: a result of which no valid message can be written does not leave."""
        now = self.clock.now()
        with writing(self.engine) as connection:
            row = connection.execute(select(_JOBS).where(_JOBS.c.id == job)).one()
            if row.state == JobState.READY.value:
                rows.move_job(connection, row, JobEvent.REFUSED, reason=reason)
                rows.tell(connection, now, row.study_uid, "job quarantined", reason, job)

    def claim_deliveries(self, destination: DestinationName, lease: float, limit: int) -> Sequence[Delivery]:
        """Due rows of one destination, oldest first, leased to the caller."""
        table, now = _DELIVERIES, self.clock.now()
        expired = (table.c.lease_epoch != self.lease_clock.epoch) | (table.c.lease_until < self.lease_clock.now())
        due = (table.c.state == DeliveryState.WAITING.value) & (table.c.next_try <= now)
        lost = (table.c.state == DeliveryState.SENDING.value) & expired
        mine = (table.c.destination == destination, due | lost, may_leave(table.c.job_id))
        query = select(table).where(*mine).order_by(table.c.id).limit(limit)
        with writing(self.engine) as connection:
            found = connection.execute(query.with_for_update(skip_locked=True)).all()
            return [self._claim(connection, row, now, lease) for row in found]

    def _claim(self, connection: Connection, row: Row[Any], now: float, lease: float) -> Delivery:
        state = DeliveryState(row.state)
        if state is DeliveryState.SENDING:
            state = next_delivery_state(state, DeliveryEvent.LEASE_EXPIRED)
        values = {
            "state": next_delivery_state(state, DeliveryEvent.CLAIMED).value,
            "attempts": row.attempts + 1,
            "first_try": row.first_try if row.first_try is not None else now,
            "fence": row.fence + 1,
            "lease_epoch": self.lease_clock.epoch,
            "lease_until": self.lease_clock.now() + lease,
        }
        mine = _DELIVERIES.c.id == row.id
        connection.execute(update(_DELIVERIES).where(mine).values(**values))
        return rows.to_delivery(connection.execute(select(_DELIVERIES).where(mine)).one())

    def settle(self, delivery: Delivery, receipt: Receipt, next_try: float | None) -> None:
        """Stores the answer: delivered, waiting until `next_try`, or dead where there is none. A late answer changes nothing."""
        now = self.clock.now()
        with writing(self.engine) as connection:
            row = connection.execute(select(_DELIVERIES).where(_DELIVERIES.c.id == delivery.id)).one()
            if row.state != DeliveryState.SENDING.value or row.fence != delivery.fence:
                return
            event = _event(receipt, next_try)
            values = {"last_answer": receipt.answer, "next_try": next_try if next_try is not None else row.next_try}
            if event is DeliveryEvent.ACCEPTED:
                values["delivered_at"] = now
            self._move(connection, row, event, **values)
            if event is not DeliveryEvent.DEFERRED:
                self._tell(connection, row, event, receipt.answer, now)
                self._release_held(connection, row.job_id)
                self._roll_up(connection, row.job_id)

    def replay_delivery(self, delivery: int) -> None:
        """A dead letter is tried again for its whole time; raises NotFound and IllegalTransition."""
        now = self.clock.now()
        with writing(self.engine) as connection:
            row = connection.execute(select(_DELIVERIES).where(_DELIVERIES.c.id == delivery)).one_or_none()
            if row is None:
                raise NotFound(f"no delivery {delivery}")
            self._move(connection, row, DeliveryEvent.REPLAYED, attempts=0, first_try=None, next_try=now)
            job = connection.execute(select(_JOBS).where(_JOBS.c.id == row.job_id)).one()
            if job.state == JobState.UNDELIVERED.value:
                rows.move_job(connection, job, JobEvent.REPLAYED)
            rows.tell(connection, now, job.study_uid, "delivery replayed", f"{row.role} to {row.destination}", job.id)

    def _move(self, connection: Connection, row: Row[Any], event: DeliveryEvent, **values: Any) -> None:
        state = next_delivery_state(DeliveryState(row.state), event)
        connection.execute(update(_DELIVERIES).where(_DELIVERIES.c.id == row.id).values(state=state.value, **values))

    def _tell(self, connection: Connection, row: Row[Any], event: DeliveryEvent, answer: str, now: float) -> None:
        study = connection.execute(select(_JOBS.c.study_uid).where(_JOBS.c.id == row.job_id)).scalar_one()
        what = "delivered" if event is DeliveryEvent.ACCEPTED else "dead letter"
        rows.tell(connection, now, study, what, f"{row.role} to {row.destination}: {answer}", row.job_id)

    def _release_held(self, connection: Connection, job: str) -> None:
        """Messages go when every object they speak of has arrived, or has become a dead letter that somebody is told of."""
        table = _DELIVERIES
        of_job = table.c.job_id == job
        on_the_way = select(table.c.id).where(
            of_job, table.c.payload == Payload.OBJECT.value, table.c.state.not_in(_TERMINAL)
        )
        if connection.execute(on_the_way).first() is None:
            held = select(table).where(of_job, table.c.state == DeliveryState.HELD.value)
            for row in connection.execute(held).all():
                self._move(connection, row, DeliveryEvent.UNHELD, next_try=self.clock.now())

    def _roll_up(self, connection: Connection, job: str) -> None:
        states = set(connection.execute(select(_DELIVERIES.c.state).where(_DELIVERIES.c.job_id == job)).scalars())
        row = connection.execute(select(_JOBS).where(_JOBS.c.id == job)).one()
        if states <= set(_TERMINAL) and row.state == JobState.DELIVERING.value:
            dead = DeliveryState.DEAD.value in states
            rows.move_job(connection, row, JobEvent.SOME_DEAD if dead else JobEvent.ALL_DELIVERED)


def _values(draft: DeliveryDraft, now: float) -> dict[str, Any]:
    state = DeliveryState.HELD if draft.held else DeliveryState.WAITING
    return {
        "job_id": draft.job_id,
        "destination": draft.destination,
        "payload": draft.payload.value,
        "role": draft.role,
        "key": draft.key,
        "file": draft.file,
        "sop_class_uid": draft.sop_class_uid,
        "state": state.value,
        "next_try": now,
    }


def _event(receipt: Receipt, next_try: float | None) -> DeliveryEvent:
    if receipt.verdict is Verdict.ACCEPTED:
        return DeliveryEvent.ACCEPTED
    if receipt.verdict is Verdict.RETRY and next_try is not None:
        return DeliveryEvent.DEFERRED
    return DeliveryEvent.REJECTED
