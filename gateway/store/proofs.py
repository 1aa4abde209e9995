"""The ledger's part for proof: what a destination says it has stored, and whether it really has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Update, insert, select, update

from gateway.domain.ids import DestinationName
from gateway.domain.job import Commitment, Delivery, Receipt, Verdict
from gateway.domain.ports import Clock
from gateway.domain.states import DeliveryEvent, DeliveryState
from gateway.store import progress, rows, schema
from gateway.store.engine import reading, writing

_DELIVERIES, _COMMITMENTS = schema.deliveries, schema.commitments
_STORED = _DELIVERIES.c.state == DeliveryState.STORED.value


class Proofs:
    """Implements the proving half of `gateway.domain.ports.OutboxLedger`."""

    engine: Any
    clock: Clock

    def claim_proofs(self, destination: DestinationName, lease: float, limit: int) -> Sequence[Delivery]:
        """Stored rows of one destination whose proof is due, oldest first; not due again before the lease is over.

        Asking twice does no harm, so a lost asker costs the lease and nothing else.
        """
        table, now = _DELIVERIES, self.clock.now()
        due = select(table).where(table.c.destination == destination, _STORED, table.c.next_try <= now)
        query = due.order_by(table.c.id).limit(limit)
        with reading(self.engine) as connection:
            if connection.execute(query.limit(1)).first() is None:
                return []
        with writing(self.engine) as connection:
            found = connection.execute(query.with_for_update(skip_locked=True)).all()
            for row in found:
                claimed = {"fence": row.fence + 1, "checks": row.checks + 1, "next_try": now + lease}
                connection.execute(update(table).where(table.c.id == row.id).values(**claimed))
            ids = [row.id for row in found]
            claimed_rows = connection.execute(select(table).where(table.c.id.in_(ids)).order_by(table.c.id)).all()
            return [rows.to_delivery(row) for row in claimed_rows]

    def settle_proof(self, delivery: Delivery, finding: Receipt, next_try: float | None) -> None:
        """Stores what was found: delivered, sent again or asked again at `next_try`, dead where there is none."""
        now = self.clock.now()
        with writing(self.engine) as connection:
            row = connection.execute(select(_DELIVERIES).where(_DELIVERIES.c.id == delivery.id)).one()
            if row.state != DeliveryState.STORED.value or row.fence != delivery.fence:
                return
            event = _event(finding, next_try)
            if event is None:
                later = {"last_answer": finding.answer, "next_try": next_try, "transaction_uid": None}
                connection.execute(_of(row).values(**later))
                if finding.answer != row.last_answer:
                    progress.remark(connection, row, "not proven yet", finding.answer, now)
                return
            due = row.next_try if next_try is None else next_try
            values: dict[str, Any] = {"last_answer": finding.answer, "next_try": due}
            if event is DeliveryEvent.VERIFIED:
                values["delivered_at"] = now
            progress.move(connection, row, event, **values)
            progress.tell(connection, row, event, finding.answer, now)
            progress.follow_up(connection, row.job_id, now)

    def open_commitment(self, transaction: str, deliveries: Sequence[Delivery], answer_until: float) -> None:
        """Writes down a storage commitment transaction before it is requested."""
        now = self.clock.now()
        with writing(self.engine) as connection:
            destination = deliveries[0].draft.destination
            values = {"transaction_uid": transaction, "destination": destination, "requested_at": now}
            connection.execute(insert(_COMMITMENTS).values(**values))
            for delivery in deliveries:
                mine = _DELIVERIES.c.id == delivery.id, _DELIVERIES.c.fence == delivery.fence, _STORED
                asked = {"transaction_uid": transaction, "next_try": answer_until}
                connection.execute(update(_DELIVERIES).where(*mine).values(**asked))

    def commitment(self, transaction: str) -> Commitment | None:
        """A transaction of ours, with the deliveries that wait for its answer."""
        table = _DELIVERIES
        with reading(self.engine) as connection:
            query = select(_COMMITMENTS).where(_COMMITMENTS.c.transaction_uid == transaction)
            found = connection.execute(query).one_or_none()
            if found is None:
                return None
            return Commitment(
                transaction=transaction,
                destination=DestinationName(found.destination),
                requested_at=found.requested_at,
                answered_at=found.answered_at,
                deliveries=tuple(_waiting(connection, table.c.transaction_uid == transaction)),
            )

    def close_commitment(self, transaction: str, answer: str) -> None:
        """The transaction is answered; a second answer changes nothing."""
        mine = _COMMITMENTS.c.transaction_uid == transaction, _COMMITMENTS.c.answered_at.is_(None)
        with writing(self.engine) as connection:
            connection.execute(update(_COMMITMENTS).where(*mine).values(answered_at=self.clock.now(), answer=answer))


def _waiting(connection: Connection, which: Any) -> Sequence[Delivery]:
    query = select(_DELIVERIES).where(which, _STORED).order_by(_DELIVERIES.c.id)
    return [rows.to_delivery(row) for row in connection.execute(query).all()]


def _of(row: Row[Any]) -> Update:
    return update(_DELIVERIES).where(_DELIVERIES.c.id == row.id)


def _event(finding: Receipt, next_try: float | None) -> DeliveryEvent | None:
    """None: it stays as it is and is asked for again."""
    if finding.verdict is Verdict.ACCEPTED:
        return DeliveryEvent.VERIFIED
    if next_try is None or finding.verdict in (Verdict.REJECTED, Verdict.UNSUPPORTED):
        return DeliveryEvent.REJECTED
    return DeliveryEvent.MISSING if finding.verdict is Verdict.MISSING else None
