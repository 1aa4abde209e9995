"""The ledger's part for storage commitment that others ask of us."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, insert, select, update

from gateway.domain.commitment import CommitmentRequest, Kept, Reference
from gateway.domain.ids import AETitle
from gateway.domain.ports import Clock
from gateway.store import schema
from gateway.store.engine import reading, writing

_REQUESTS, _INSTANCES, _CONFLICTS = schema.commitment_requests, schema.instances, schema.conflicts
_AT_ONCE = 500  # parameters of one query; SQLite's limit was 999 for long


class CommitmentRequests:
    """Implements `gateway.domain.ports.CommitmentLedger`."""

    engine: Any
    clock: Clock

    def add_commitment_request(self, request: CommitmentRequest, due: float) -> bool:
        """Keeps a request, to be reported from `due` on; False where its Transaction UID is used by another one."""
        instances = [[one.sop_class_uid, one.sop_instance_uid] for one in request.references]
        values = {
            "transaction_uid": request.transaction_uid,
            "calling_ae": request.calling_ae,
            "address": request.address,
            "instances": instances,
            "requested_at": request.requested_at,
            "next_try": due,
        }
        with writing(self.engine) as connection:
            query = select(_REQUESTS).where(_REQUESTS.c.transaction_uid == request.transaction_uid)
            known = connection.execute(query).one_or_none()
            if known is None:
                connection.execute(insert(_REQUESTS).values(**values))
                return True
            same = known.calling_ae == request.calling_ae and known.instances == instances
            return bool(same and known.reported_at is None)

    def due_commitment_requests(self, limit: int) -> Sequence[CommitmentRequest]:
        """Requests whose report is due, oldest first."""
        query = select(_REQUESTS).where(_REQUESTS.c.next_try <= self.clock.now())
        with reading(self.engine) as connection:
            return [_to_request(row) for row in connection.execute(query.order_by(_REQUESTS.c.next_try).limit(limit))]

    def defer_commitment_request(self, transaction_uid: str, due: float | None, answer: str) -> None:
        """The report was not taken: due again then, or given up where there is no such time."""
        values = {"next_try": due, "attempts": _REQUESTS.c.attempts + 1, "answer": answer}
        self._change(transaction_uid, values)

    def settle_commitment_request(self, transaction_uid: str, verdict: str) -> None:
        """The report was taken."""
        self._change(transaction_uid, {"next_try": None, "reported_at": self.clock.now(), "answer": verdict})

    def _change(self, transaction_uid: str, values: Mapping[str, Any]) -> None:
        with writing(self.engine) as connection:
            unreported = (_REQUESTS.c.transaction_uid == transaction_uid, _REQUESTS.c.reported_at.is_(None))
            connection.execute(update(_REQUESTS).where(*unreported).values(**values))

    def kept(self, uids: Sequence[str], calling_ae: str) -> Mapping[str, Kept]:
        """What is known of instances, by SOP Instance UID, with regard to a peer that asks."""
        found: dict[str, Kept] = {}
        for start in range(0, len(uids), _AT_ONCE):
            found |= self._kept(uids[start : start + _AT_ONCE], calling_ae)
        return found

    def _kept(self, uids: Sequence[str], calling_ae: str) -> dict[str, Kept]:
        disputed = select(_CONFLICTS.c.sop_instance_uid).where(
            _CONFLICTS.c.sop_instance_uid.in_(uids), _CONFLICTS.c.calling_ae == calling_ae
        )
        query = select(
            _INSTANCES.c.sop_instance_uid,
            _INSTANCES.c.header["sop_class_uid"].as_string().label("sop_class_uid"),
            _INSTANCES.c.file,
            _INSTANCES.c.sha256,
        ).where(_INSTANCES.c.sop_instance_uid.in_(uids))
        with reading(self.engine) as connection:
            others = set(connection.execute(disputed).scalars())
            rows = connection.execute(query).all()
        return {
            row.sop_instance_uid: Kept(
                sop_class_uid=row.sop_class_uid,
                file=row.file,
                sha256=row.sha256,
                conflict=row.sop_instance_uid in others,
            )
            for row in rows
        }


def _to_request(row: Row[Any]) -> CommitmentRequest:
    return CommitmentRequest(
        transaction_uid=row.transaction_uid,
        calling_ae=AETitle(row.calling_ae),
        address=row.address,
        references=tuple(Reference(sop_class_uid=kind, sop_instance_uid=uid) for kind, uid in row.instances),
        requested_at=row.requested_at,
        attempts=row.attempts,
    )
