"""The ledger's part for receiving and holding: associations, instances, release."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, bindparam, case, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from gateway.domain.ids import AssociationId, InstanceUID, StudyUID
from gateway.domain.ports import Clock, StudyRecord
from gateway.domain.states import DeliveryState, StudyEvent, StudyState
from gateway.domain.study import Instance
from gateway.store import rows, schema
from gateway.store.engine import reading, writing
from gateway.store.group import GroupCommit
from gateway.store.prepared import Prepared
from gateway.store.turn import Turn

_STUDIES, _INSTANCES, _ASSOCIATIONS, _LINKS = (
    schema.studies,
    schema.instances,
    schema.associations,
    schema.study_associations,
)

_REPORT_COMES = 30.0  # seconds after a start in which reports that were asked for before it are waited for

# Built once: every instance that comes in needs them.
_KNOWN = select(_INSTANCES.c.sha256, _INSTANCES.c.study_uid).where(_INSTANCES.c.sop_instance_uid == bindparam("uid"))
_IN_OPEN_STUDY = (_STUDIES.c.uid == bindparam("study"), _STUDIES.c.state == StudyState.OPEN.value)
_SEEN = update(_STUDIES).where(*_IN_OPEN_STUDY).values(last_stored_at=bindparam("at"))
_ONE_MORE = (
    update(_STUDIES)
    .where(*_IN_OPEN_STUDY)
    .values(revision=_STUDIES.c.revision + 1, instances=_STUDIES.c.instances + 1, last_stored_at=bindparam("at"))
)


class _Statements(NamedTuple):
    known: Prepared
    seen: Prepared
    one_more: Prepared
    insert: Prepared


class Intake:
    """Implements `gateway.domain.ports.IntakeLedger`."""

    engine: Any
    intake_engine: Any  # the same database, where instances may be less durable than all the rest
    clock: Clock

    @cached_property
    def _turn(self) -> AbstractContextManager[None]:
        """Among processes; a database that is a server sees to it itself."""
        if self.intake_engine.dialect.name != "sqlite":
            return nullcontext()
        return Turn(Path(f"{self.intake_engine.url.database}-turn"))

    @cached_property
    def _linked(self) -> set[tuple[str, str]]:
        """Studies and open associations of this process that are known to belong together."""
        return set()

    @cached_property
    def _run(self) -> _Statements:
        dialect = self.intake_engine.dialect
        return _Statements(*(Prepared(one, dialect) for one in (_KNOWN, _SEEN, _ONE_MORE, insert(_INSTANCES))))

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
            unasked = deliveries.c.state == DeliveryState.STORED.value, deliveries.c.transaction_uid.is_(None)
            connection.execute(update(deliveries).where(*unasked).values(next_try=now))
            # Nobody knows whether the last gateway still sent its request for commitment: the report may be on its way.
            soon = now + _REPORT_COMES
            asked = deliveries.c.state == DeliveryState.STORED.value, deliveries.c.next_try > soon
            connection.execute(update(deliveries).where(*asked).values(next_try=soon))

    def try_to_write(self) -> None:
        """Finds out whether instances can be written down, and changes nothing; raises LedgerError."""
        nobody = update(_ASSOCIATIONS).where(_ASSOCIATIONS.c.id == "").values(how="")
        with writing(self.intake_engine) as connection:
            connection.execute(nobody)

    def open_association(self, association: AssociationId, calling_ae: str, address: str) -> None:
        """An association began."""
        values = {"id": association, "calling_ae": calling_ae, "address": address, "opened_at": self.clock.now()}
        with writing(self.engine) as connection:
            connection.execute(insert(_ASSOCIATIONS).values(**values))

    def close_association(self, association: AssociationId, how: str) -> None:
        """An association ended: `released`, `refused`, `aborted` or `lost`."""
        with writing(self.engine) as connection:
            connection.execute(
                update(_ASSOCIATIONS)
                .where(_ASSOCIATIONS.c.id == association, _ASSOCIATIONS.c.closed_at.is_(None))
                .values(closed_at=self.clock.now(), how=how)
            )
        self._linked.difference_update([link for link in self._linked if link[1] == association])

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
        return self._group(instance)

    @cached_property
    def _group(self) -> GroupCommit[Instance, str]:
        return GroupCommit(self._add_all)

    def _add_all(self, instances: Sequence[Instance]) -> Sequence[str]:
        linked: set[tuple[str, str]] = set()
        with self._turn, writing(self.intake_engine) as connection:
            kinds = [self._add(connection, instance, linked) for instance in instances]
        self._linked |= linked  # only what is durable is remembered
        return kinds

    def _add(self, connection: Connection, instance: Instance, linked: set[tuple[str, str]]) -> str:
        header = instance.header
        known = self._run.known(connection, {"uid": header.sop_instance_uid}).fetchone()
        if known is not None and known[0] != instance.sha256:
            self._add_conflict(connection, instance, known[1])
            return "conflict"
        if known is None:
            self._add_new(connection, instance)
        else:
            # A sender that repeats itself is still busy with the study: the quiet time starts again.
            self._run.seen(connection, {"study": header.study_uid, "at": instance.received_at})
        link = (str(header.study_uid), str(instance.association_id))
        if link not in self._linked and link not in linked:
            self._link(connection, *link)
            linked.add(link)
        return "new" if known is None else "duplicate"

    def _add_new(self, connection: Connection, instance: Instance) -> None:
        seen = {"study": instance.header.study_uid, "at": instance.received_at}
        if not self._run.one_more(connection, seen).rowcount:
            self._open(connection, instance)
            self._run.one_more(connection, seen)
        self._run.insert(connection, rows.instance_values(instance))

    def _open(self, connection: Connection, instance: Instance) -> None:
        """The study of this instance is new, or was released and begins again."""
        uid, at = instance.header.study_uid, instance.received_at
        if connection.execute(select(_STUDIES.c.uid).where(_STUDIES.c.uid == uid)).first() is None:
            values = {"uid": uid, "state": StudyState.OPEN.value, "revision": 0, "instances": 0}
            connection.execute(insert(_STUDIES).values(**values, first_stored_at=at, last_stored_at=at))
            rows.tell(connection, at, uid, "study opened", f"first instance from {instance.calling_ae}")
        else:
            rows.move_study(connection, uid, StudyEvent.INSTANCE_STORED)
            rows.tell(connection, at, uid, "study reopened", f"new instance from {instance.calling_ae}")

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

    def _link(self, connection: Connection, study_uid: str, association_id: str) -> None:
        values = {"study_uid": study_uid, "association_id": association_id}
        if connection.execute(select(_LINKS).filter_by(**values)).first() is None:
            connection.execute(insert(_LINKS).values(**values))

    def open_studies(self) -> Sequence[StudyRecord]:
        """Studies that wait to be released, oldest first."""
        return self._records(StudyState.OPEN)

    def put_back(self, study: StudyUID, now: float) -> None:
        """The clock was put back: the last instance of an open study counts as stored now."""
        with writing(self.engine) as connection:
            connection.execute(
                update(_STUDIES)
                .where(_STUDIES.c.uid == study, _STUDIES.c.state == StudyState.OPEN.value)
                .values(last_stored_at=now)
            )

    def complete_studies(self) -> Sequence[StudyRecord]:
        """Released studies that wait for routing, oldest first."""
        return self._records(StudyState.COMPLETE)

    def _records(self, state: StudyState) -> Sequence[StudyRecord]:
        with reading(self.engine) as connection:
            found = connection.execute(_IN_STATE, {"state": state.value}).all()
        return [to_study_record(row) for row in found]

    def release(self, study: StudyUID, revision: int, reason: str, flags: Sequence[str] = ()) -> bool:
        """OPEN -> COMPLETE, unless an instance came since `revision` was read."""
        now = self.clock.now()
        with writing(self.engine) as connection:
            found = connection.execute(
                update(_STUDIES)
                .where(
                    _STUDIES.c.uid == study, _STUDIES.c.revision == revision, _STUDIES.c.state == StudyState.OPEN.value
                )
                .values(state=StudyState.COMPLETE.value, reason=reason, flags=list(flags), released_at=now)
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
    last = (
        select(_ASSOCIATIONS.c.how)
        .join(_LINKS, _LINKS.c.association_id == _ASSOCIATIONS.c.id)
        .where(_LINKS.c.study_uid == _STUDIES.c.uid, _ASSOCIATIONS.c.closed_at.is_not(None))
        .order_by(_ASSOCIATIONS.c.closed_at.desc())
        .limit(1)
        .scalar_subquery()
    )
    told = select(func.count()).where(schema.evidence.c.study_uid == _STUDIES.c.uid).scalar_subquery()
    return (
        select(
            *(column for column in _STUDIES.c if column.name != "context"),
            still_open.label("open_associations"),
            (not_released == 0).label("all_released"),
            (func.coalesce(last, "released") == "released").label("last_released"),
            told.label("evidence"),
        )
        .select_from(joined)
        .group_by(_STUDIES.c.uid)
        .order_by(_STUDIES.c.last_stored_at)
    )


_IN_STATE = study_query().where(_STUDIES.c.state == bindparam("state"))


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
        last_released=bool(row.last_released),
        reason=row.reason,
        released_at=row.released_at,
        evidence=row.evidence,
        flags=tuple(row.flags),
    )
