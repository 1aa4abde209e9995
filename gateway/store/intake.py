"""The ledger's part for receiving and holding: associations, instances, release."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, case, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from gateway.domain.ids import AssociationId, InstanceUID, StudyUID
from gateway.domain.ports import Clock, StudyRecord
from gateway.domain.states import DeliveryState, StudyEvent, StudyState
from gateway.domain.study import Instance
from gateway.store import rows, schema
from gateway.store.engine import reading, writing

_STUDIES, _INSTANCES, _ASSOCIATIONS, _LINKS = (
    schema.studies,
    schema.instances,
    schema.associations,
    schema.study_associations,
)


class Intake:
    """Implements `gateway.domain.ports.IntakeLedger`."""

    engine: Any
    clock: Clock

    def recover(self) -> None:
        """After a stop of any kind: what the last gateway had open is closed, what it was sending is due again."""
        now, deliveries = self.clock.now(), schema.deliveries
        with writing(self.engine) as connection:
            connection.execute(
                update(_ASSOCIATIONS).where(_ASSOCIATIONS.c.closed_at.is_(None)).values(closed_at=now, how="lost")
            )
            connection.execute(
                update(deliveries)
                .where(deliveries.c.state == DeliveryState.SENDING.value)
                .values(state=DeliveryState.WAITING.value, next_try=now)
            )

    def open_association(self, association: AssociationId, calling_ae: str, address: str) -> None:
        """An association began."""
        values = {"id": association, "calling_ae": calling_ae, "address": address, "opened_at": self.clock.now()}
        with writing(self.engine) as connection:
            connection.execute(insert(_ASSOCIATIONS).values(**values))

    def close_association(self, association: AssociationId, how: str) -> None:
        """An association ended: `released`, `aborted` or `lost`."""
        with writing(self.engine) as connection:
            connection.execute(
                update(_ASSOCIATIONS)
                .where(_ASSOCIATIONS.c.id == association, _ASSOCIATIONS.c.closed_at.is_(None))
                .values(closed_at=self.clock.now(), how=how)
            )

    def instance(self, uid: InstanceUID) -> Instance | None:
        """One stored instance."""
        with reading(self.engine) as connection:
            row = connection.execute(select(_INSTANCES).where(_INSTANCES.c.sop_instance_uid == uid)).one_or_none()
        return rows.to_instance(row) if row else None

    def has_study(self, study: StudyUID) -> bool:
        """Whether an instance of the study has arrived before."""
        with reading(self.engine) as connection:
            return connection.execute(select(_STUDIES.c.uid).where(_STUDIES.c.uid == study)).first() is not None

    def add_instance(self, instance: Instance) -> str:
        """Makes an instance durable; says `new`, `duplicate` or `conflict`. The first content of a SOP Instance UID stays."""
        with writing(self.engine) as connection:
            uid = instance.header.sop_instance_uid
            query = select(_INSTANCES.c.sha256, _INSTANCES.c.study_uid).where(_INSTANCES.c.sop_instance_uid == uid)
            known = connection.execute(query).one_or_none()
            if known is None:
                self._add_new(connection, instance)
                return "new"
            if known.sha256 == instance.sha256:
                self._add_duplicate(connection, instance)
                return "duplicate"
            self._add_conflict(connection, instance, known.study_uid)
            return "conflict"

    def _add_new(self, connection: Connection, instance: Instance) -> None:
        uid, at = instance.header.study_uid, instance.received_at
        state = connection.execute(select(_STUDIES.c.state).where(_STUDIES.c.uid == uid)).scalar_one_or_none()
        if state is None:
            values = {"uid": uid, "state": StudyState.OPEN.value, "revision": 0, "instances": 0}
            connection.execute(insert(_STUDIES).values(**values, first_stored_at=at, last_stored_at=at))
            rows.tell(connection, at, uid, "study opened", f"first instance from {instance.calling_ae}")
        elif state != StudyState.OPEN.value:
            rows.tell(connection, at, uid, "study reopened", f"new instance from {instance.calling_ae}")
        rows.move_study(
            connection,
            uid,
            StudyEvent.INSTANCE_STORED,
            revision=_STUDIES.c.revision + 1,
            instances=_STUDIES.c.instances + 1,
            last_stored_at=at,
        )
        connection.execute(insert(_INSTANCES).values(**rows.instance_values(instance)))
        self._link(connection, instance)

    def _add_duplicate(self, connection: Connection, instance: Instance) -> None:
        # A sender that repeats itself is still busy with the study: the quiet time starts again.
        connection.execute(
            update(_STUDIES)
            .where(_STUDIES.c.uid == instance.header.study_uid, _STUDIES.c.state == StudyState.OPEN.value)
            .values(last_stored_at=instance.received_at)
        )
        self._link(connection, instance)

    def _add_conflict(self, connection: Connection, instance: Instance, study_uid: str) -> None:
        values = {
            "sop_instance_uid": instance.header.sop_instance_uid,
            "study_uid": study_uid,
            "sha256": instance.sha256,
            "file": instance.file,
            "calling_ae": instance.calling_ae,
            "received_at": instance.received_at,
        }
        try:
            with connection.begin_nested():
                connection.execute(insert(schema.conflicts).values(**values))
        except IntegrityError:
            return  # the same other content once more
        detail = (
            f"SOP Instance UID {instance.header.sop_instance_uid} came again with other content; the first copy is kept"
        )
        rows.tell(connection, instance.received_at, study_uid, "conflict quarantined", detail)

    def _link(self, connection: Connection, instance: Instance) -> None:
        values = {"study_uid": instance.header.study_uid, "association_id": instance.association_id}
        known = select(_LINKS).filter_by(**values)
        if connection.execute(known).first() is None:
            connection.execute(insert(_LINKS).values(**values))

    def open_studies(self) -> Sequence[StudyRecord]:
        """Studies that wait to be released, oldest first."""
        return self._records(StudyState.OPEN)

    def complete_studies(self) -> Sequence[StudyRecord]:
        """Released studies that wait for routing, oldest first."""
        return self._records(StudyState.COMPLETE)

    def _records(self, state: StudyState) -> Sequence[StudyRecord]:
        with reading(self.engine) as connection:
            found = connection.execute(study_query().where(_STUDIES.c.state == state.value)).all()
        return [to_study_record(row) for row in found]

    def release(self, study: StudyUID, revision: int, reason: str) -> bool:
        """OPEN -> COMPLETE, unless an instance came since `revision` was read."""
        now = self.clock.now()
        with writing(self.engine) as connection:
            found = connection.execute(
                update(_STUDIES)
                .where(
                    _STUDIES.c.uid == study, _STUDIES.c.revision == revision, _STUDIES.c.state == StudyState.OPEN.value
                )
                .values(state=StudyState.COMPLETE.value, reason=reason, released_at=now)
            )
            if found.rowcount:
                rows.tell(connection, now, study, "study released", reason)
        return bool(found.rowcount)


def study_query() -> Select[Any]:
    """Studies with what is known of their associations."""
    still_open = func.coalesce(
        func.sum(case((_ASSOCIATIONS.c.closed_at.is_(None) & _ASSOCIATIONS.c.id.is_not(None), 1), else_=0)), 0
    )
    not_released = func.coalesce(func.sum(case((_ASSOCIATIONS.c.how == "released", 0), else_=1)), 0)
    joined = _STUDIES.outerjoin(_LINKS, _LINKS.c.study_uid == _STUDIES.c.uid).outerjoin(
        _ASSOCIATIONS, _ASSOCIATIONS.c.id == _LINKS.c.association_id
    )
    return (
        select(
            *(column for column in _STUDIES.c if column.name != "context"),
            still_open.label("open_associations"),
            (not_released == 0).label("all_released"),
        )
        .select_from(joined)
        .group_by(_STUDIES.c.uid)
        .order_by(_STUDIES.c.last_stored_at)
    )


def to_study_record(row: Any) -> StudyRecord:
    """A row of `study_query` as a record."""
    return StudyRecord(
        uid=StudyUID(row.uid),
        state=StudyState(row.state),
        instances=row.instances,
        revision=row.revision,
        last_stored_at=row.last_stored_at,
        open_associations=row.open_associations,
        all_released=bool(row.all_released),
        reason=row.reason,
        released_at=row.released_at,
    )
