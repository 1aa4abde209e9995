"""The ledger's part for delivery: one row for each object or message and destination."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, exists, insert, select, update

from gateway.domain.errors import NotFound, ReportRefused
from gateway.domain.ids import DestinationName, JobId
from gateway.domain.job import Delivery, DeliveryDraft, Job, Receipt, Verdict
from gateway.domain.ports import Clock
from gateway.domain.roles import NOTICES
from gateway.domain.states import DeliveryEvent, DeliveryState, JobEvent, JobState, next_delivery_state
from gateway.store import progress, rows, schema
from gateway.store.context import may_leave
from gateway.store.deferred import forget_application
from gateway.store.engine import DatabaseClock, LeaseClock, reading, writing

_DELIVERIES, _JOBS = schema.deliveries, schema.jobs


class Outbox:
    """Implements the sending half of `gateway.domain.ports.OutboxLedger`."""

    engine: Any
    clock: Clock
    lease_clock: LeaseClock | DatabaseClock

    def ready_jobs(self) -> Sequence[Job]:
        """Jobs whose results wait to be planned, oldest first."""
        with reading(self.engine) as connection:
            return [rows.to_job(row) for row in connection.execute(_READY).all()]

    def plan(self, job: JobId, drafts: Sequence[DeliveryDraft]) -> None:
        """READY -> DELIVERING with its outbox rows; does nothing for a job that is planned already."""
        now = self.clock.now()
        with writing(self.engine) as connection:
            row = connection.execute(select(_JOBS).where(_JOBS.c.id == job)).one()
            if row.state != JobState.READY.value:
                return
            rows.move_job(connection, row, JobEvent.PLANNED)
            if drafts:
                connection.execute(insert(_DELIVERIES), [rows.delivery_values(draft, now) for draft in drafts])
            names = (
                ", ".join(sorted({draft.destination for draft in drafts})) or "nowhere: the rule names no destination"
            )
            rows.tell(connection, now, row.study_uid, "deliveries planned", f"{len(drafts)} to {names}", job)
            progress.follow_up(connection, job, now)  # a message may have no object to wait for

    def untold_refusals(self) -> Sequence[Job]:
        """Refused jobs of which archive and EHR are to be told and have not been, oldest first."""
        query = (
            select(_JOBS)
            .where(_JOBS.c.state == JobState.QUARANTINED.value, _JOBS.c.untold == 1, may_leave(_JOBS.c.id))
            .order_by(_JOBS.c.finished_at)
        )
        with reading(self.engine) as connection:
            return [rows.to_job(row) for row in connection.execute(query).all()]

    def tell_refusal(self, job: JobId, drafts: Sequence[DeliveryDraft], trouble: str = "") -> None:
        """A refused job, which stays in quarantine, gets its outbox rows; what was told before is not told again.

        ``trouble`` says why some of it cannot be told.
        """
        now = self.clock.now()
        with writing(self.engine) as connection:
            row = connection.execute(select(_JOBS).where(_JOBS.c.id == job)).one()
            if not row.untold or row.state != JobState.QUARANTINED.value:
                return
            connection.execute(update(_JOBS).where(_JOBS.c.id == job).values(untold=0))
            known = set(connection.execute(select(_DELIVERIES.c.key).where(_DELIVERIES.c.job_id == job)).scalars())
            new = [draft for draft in drafts if draft.key not in known]
            if new:
                connection.execute(insert(_DELIVERIES), [rows.delivery_values(draft, now) for draft in new])
            names = ", ".join(sorted({draft.destination for draft in new})) or "nobody new"
            told = f"{len(new)} to {names}" + (f"; {trouble}" if trouble else "")
            rows.tell(connection, now, row.study_uid, "refusal reported", told, job)
            progress.follow_up(connection, job, now)

    def hold_back(self, job: JobId, reason: str) -> None:
        """READY -> QUARANTINED: a result of which no valid message can be written does not leave. QUEUED -> QUARANTINED: a
        job that no worker can do."""
        now = self.clock.now()
        with writing(self.engine) as connection:
            row = connection.execute(select(_JOBS).where(_JOBS.c.id == job)).one()
            if row.state in (JobState.READY.value, JobState.QUEUED.value):
                rows.move_job(connection, row, JobEvent.REFUSED, reason=reason)
                rows.tell(connection, now, row.study_uid, "job quarantined", reason, job)

    def claim_deliveries(self, destination: DestinationName, lease: float, limit: int) -> Sequence[Delivery]:
        """Due rows of one destination, oldest first, leased to the caller."""
        now, epoch, leases = self.clock.now(), self.lease_clock.epoch, self.lease_clock.now()
        these = {"destination": destination, "now": now, "epoch": epoch, "leases": leases, "most": limit}
        with reading(self.engine) as connection:  # a look costs no write: it is taken four times a second
            if connection.execute(_DUE, these | {"most": 1}).first() is None:
                return []
        with writing(self.engine) as connection:
            found = connection.execute(_DUE.with_for_update(skip_locked=True), these).all()
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
            "checks": 0,
            "transaction_uid": None,
        }
        mine = _DELIVERIES.c.id == row.id
        forget_application(connection, row)
        connection.execute(update(_DELIVERIES).where(mine).values(**values))
        return rows.to_delivery(connection.execute(select(_DELIVERIES).where(mine)).one())

    def settle(
        self, delivery: Delivery, receipt: Receipt, next_try: float | None, *, proof_due: float | None = None
    ) -> None:
        """Stores the answer to a transfer; a late one changes nothing.

        Accepted is delivered, or only stored where `proof_due` says when to ask for the proof. What may come again waits
        until `next_try`, and is dead where there is none. A form that is not taken makes room for its fallback.
        """
        now = self.clock.now()
        with writing(self.engine) as connection:
            row = connection.execute(select(_DELIVERIES).where(_DELIVERIES.c.id == delivery.id)).one()
            if row.state != DeliveryState.SENDING.value or row.fence != delivery.fence:
                return
            event = _event(receipt, next_try, proof_due is not None, bool(row.fallbacks))
            values: dict[str, Any] = {"last_answer": receipt.answer}
            if event in (DeliveryEvent.ACCEPTED, DeliveryEvent.TAKEN):
                values["stored_at"] = now
            if event is DeliveryEvent.ACCEPTED:
                values["delivered_at"] = now
            due = proof_due if event is DeliveryEvent.TAKEN else next_try
            progress.move(connection, row, event, next_try=row.next_try if due is None else due, **values)
            progress.tell(connection, row, event, receipt.answer, now)
            if event is DeliveryEvent.SUBSTITUTED:
                self._send_instead(connection, row, now)
            progress.follow_up(connection, row.job_id, now)

    def _send_instead(self, connection: Connection, row: Row[Any], now: float) -> None:
        """Other forms take the place of one that is not taken; what is on its way already is enough."""
        table = _DELIVERIES
        for draft in rows.to_delivery(row).draft.fallbacks:
            mine = table.c.job_id == draft.job_id, table.c.destination == draft.destination, table.c.key == draft.key
            if connection.execute(select(table.c.id).where(*mine)).first() is None:
                connection.execute(insert(table).values(**rows.delivery_values(draft, now)))

    def replay_delivery(self, delivery: int) -> None:
        """A dead letter is tried again for its whole time; raises NotFound and IllegalTransition."""
        now = self.clock.now()
        with writing(self.engine) as connection:
            row = connection.execute(select(_DELIVERIES).where(_DELIVERIES.c.id == delivery)).one_or_none()
            if row is None:
                raise NotFound(f"no delivery {delivery}")
            dead_report = row.report_key and row.state == DeliveryState.DEAD.value
            if dead_report and connection.execute(_later_editions(row)).first() is not None:
                raise ReportRefused(f"delivery {delivery}: a later edition of this report is on its way or delivered")
            progress.move(connection, row, DeliveryEvent.REPLAYED, attempts=0, first_try=None, next_try=now)
            job = connection.execute(select(_JOBS).where(_JOBS.c.id == row.job_id)).one()
            if job.state == JobState.UNDELIVERED.value:
                rows.move_job(connection, job, JobEvent.REPLAYED)
            progress.remark(connection, row, "delivery replayed", "by request", now)


def _is_next() -> ColumnElement[bool]:
    """Messages of one destination leave in order: behind what is under way about the same patient (also what waits for its
    application's answer, for it may have to go again), and behind every earlier edition of the same report, also one that
    waits for its objects. A dead letter holds up nobody."""
    earlier = _DELIVERIES.alias()
    before = (earlier.c.destination == _DELIVERIES.c.destination, earlier.c.id < _DELIVERIES.c.id)
    moving = (DeliveryState.WAITING.value, DeliveryState.SENDING.value, DeliveryState.STORED.value)
    patient = exists().where(
        *before,
        _DELIVERIES.c.patient_key != "",
        earlier.c.patient_key == _DELIVERIES.c.patient_key,
        earlier.c.state.in_(moving),
        may_leave(earlier.c.job_id),
    )
    report = exists().where(
        *before,
        _DELIVERIES.c.report_key != "",
        earlier.c.report_key == _DELIVERIES.c.report_key,
        earlier.c.state.in_((DeliveryState.HELD.value, *moving)),
    )
    return ~patient & ~report


def _due() -> Select[Any]:
    """What may be sent to a destination now."""
    table = _DELIVERIES
    expired = (table.c.lease_epoch != bindparam("epoch")) | (table.c.lease_until < bindparam("leases"))
    due = (table.c.state == DeliveryState.WAITING.value) & (table.c.next_try <= bindparam("now"))
    lost = (table.c.state == DeliveryState.SENDING.value) & expired
    # That a result is withdrawn is said whatever holds its study.
    free = may_leave(table.c.job_id) | table.c.role.in_(NOTICES)
    mine = (table.c.destination == bindparam("destination"), due | lost, free, _is_next())
    return select(table).where(*mine).order_by(table.c.id).limit(bindparam("most"))


# Built once: SQLAlchemy takes milliseconds for them, and they are asked several times a second.
_DUE = _due()
_READY = select(_JOBS).where(_JOBS.c.state == JobState.READY.value, may_leave(_JOBS.c.id)).order_by(_JOBS.c.finished_at)


def _later_editions(row: Row[Any]) -> Select[Any]:
    table = _DELIVERIES
    return select(table.c.id).where(
        table.c.destination == row.destination,
        table.c.report_key == row.report_key,
        table.c.id > row.id,
        table.c.state.not_in((DeliveryState.DEAD.value, DeliveryState.WITHDRAWN.value)),
    )


def _event(receipt: Receipt, next_try: float | None, wants_proof: bool, has_fallback: bool) -> DeliveryEvent:
    if receipt.verdict is Verdict.ACCEPTED:
        return DeliveryEvent.TAKEN if wants_proof else DeliveryEvent.ACCEPTED
    if receipt.verdict is Verdict.UNSUPPORTED and has_fallback:
        return DeliveryEvent.SUBSTITUTED
    if receipt.verdict is Verdict.RETRY and next_try is not None:
        return DeliveryEvent.DEFERRED
    return DeliveryEvent.REJECTED
