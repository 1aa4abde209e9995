"""The ledger's part for what the EHR says about studies: facts, links, and what is held because of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, exists, func, insert, or_, select, update

from gateway.domain.context import Fact, Key, KeyKind, Merge, Order, Person, Report, StudyContext, patient_keys
from gateway.domain.errors import NotFound
from gateway.domain.ids import JobId, StudyUID
from gateway.domain.messages import RequestedProcedure
from gateway.domain.ports import Clock
from gateway.domain.states import StudyEvent, StudyState
from gateway.store import rows, schema
from gateway.store.engine import reading, writing
from gateway.store.inbox import with_merged

_FACTS, _FACT_KEYS, _STUDIES, _STUDY_KEYS = schema.facts, schema.fact_keys, schema.studies, schema.study_keys
_ROUTED = (StudyState.ROUTED.value, StudyState.UNROUTED.value)


class Context:
    """Implements `gateway.domain.ports.ContextLedger`."""

    engine: Any
    clock: Clock

    def facts_about(self, keys: Collection[Key]) -> tuple[Sequence[Fact], int]:
        """Every fact that may concern whoever has these keys, and the number of the last fact there is."""
        with reading(self.engine) as connection:
            last = connection.execute(select(func.max(_FACTS.c.id))).scalar() or 0
            requests = _found(connection, [key for key in keys if key.kind is not KeyKind.PATIENT], Order, Report)
            ordered = {item.id for fact in requests.values() for item in _person(fact).identifiers}
            patients = with_merged(
                connection, {*(key for key in keys if key.kind is KeyKind.PATIENT), *patient_keys(ordered)}
            )
            return [*(requests | _found(connection, list(patients), Person, Merge)).values()], last

    def stale_studies(self) -> Sequence[StudyUID]:
        """Studies about which the EHR has said something since they were linked, oldest first."""
        query = select(_STUDIES.c.uid).where(_STUDIES.c.touched > _STUDIES.c.linked)
        with reading(self.engine) as connection:
            found = connection.execute(query.order_by(_STUDIES.c.last_stored_at)).scalars()
            return [StudyUID(uid) for uid in found]

    def index_study(self, study: StudyUID, keys: Collection[Key]) -> None:
        """From now on, facts with one of these keys touch the study."""
        with writing(self.engine) as connection:
            _index(connection, study, keys)

    def link(self, study: StudyUID, context: StudyContext, seen: int) -> bool:
        """Stores what the EHR says, up to fact number `seen`; False, and nothing done, if it has said more since.

        A mismatch holds whatever has not left, unless a person has said of this very mismatch that it does not matter.
        """
        ordered = [item.id for order in context.order for item in order.person.identifiers]
        known = [item.id for item in context.identifiers]
        now = self.clock.now()
        with writing(self.engine) as connection:
            if (connection.execute(select(func.max(_FACTS.c.id))).scalar() or 0) != seen:
                return False
            row = connection.execute(select(_STUDIES).where(_STUDIES.c.uid == study)).one()
            _index(connection, study, patient_keys([*ordered, *known]))
            hold = "" if context.mismatch == row.waived else context.mismatch
            values = {"context": rows.context_values(context), "linked": seen, "hold": hold}
            connection.execute(update(_STUDIES).where(_STUDIES.c.uid == study).values(**values))
            for what, detail in _news(rows.to_context(row.context), context, row.hold, hold):
                rows.tell(connection, now, study, what, detail)
            if row.state in _ROUTED and _order_of(rows.to_context(row.context)) != _order_of(context):
                rows.move_study(connection, study, StudyEvent.CONTEXT_CHANGED)
        return True

    def study_context(self, study: StudyUID) -> StudyContext | None:
        """What the EHR says about a study; nothing where it was never linked."""
        with reading(self.engine) as connection:
            found = connection.execute(select(_STUDIES.c.context).where(_STUDIES.c.uid == study)).scalar()
        return rows.to_context(found)

    def requested_procedure(self, job: JobId) -> RequestedProcedure | None:
        """What was ordered, as far as the EHR has told and it fits the images."""
        of_job = select(schema.jobs.c.study_uid).where(schema.jobs.c.id == job).scalar_subquery()
        with reading(self.engine) as connection:
            found = connection.execute(
                select(_STUDIES.c.context, _STUDIES.c.hold).where(_STUDIES.c.uid == of_job)
            ).first()
        context = rows.to_context(found.context) if found and not found.hold else None
        return context.requested_procedure() if context else None

    def waive(self, study: StudyUID) -> str:
        """A person says that a mismatch does not matter; returns it. Raises NotFound where nothing is held."""
        with writing(self.engine) as connection:
            hold = connection.execute(select(_STUDIES.c.hold).where(_STUDIES.c.uid == study)).scalar_one_or_none()
            if not hold:
                raise NotFound(f"nothing of study {study} is held")
            connection.execute(update(_STUDIES).where(_STUDIES.c.uid == study).values(hold="", waived=hold))
            rows.tell(connection, self.clock.now(), study, "released by a person", hold)
        return str(hold)


def may_leave(job_id: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether results of a job may leave: nothing holds its study, and all that the EHR has said was considered."""
    jobs = schema.jobs.alias()
    of_job = jobs.c.id == job_id
    kept = or_(_STUDIES.c.hold != "", _STUDIES.c.touched > _STUDIES.c.linked)
    return ~exists().where(of_job, _STUDIES.c.uid == jobs.c.study_uid, kept)


def _found(connection: Connection, keys: Sequence[Key], *kinds: type) -> dict[int, Fact]:
    facts: dict[int, Fact] = {}
    names = [rows.fact_kind(kind) for kind in kinds]
    for kind in KeyKind:
        values = sorted({key.value for key in keys if key.kind is kind})
        if values:
            ids = select(_FACT_KEYS.c.fact_id).where(_FACT_KEYS.c.kind == kind.value, _FACT_KEYS.c.value.in_(values))
            query = select(_FACTS).where(_FACTS.c.id.in_(ids), _FACTS.c.kind.in_(names))
            facts |= {row.id: rows.to_fact(row) for row in connection.execute(query).all()}
    return facts


def _index(connection: Connection, study: StudyUID, keys: Collection[Key]) -> None:
    query = select(_STUDY_KEYS.c.kind, _STUDY_KEYS.c.value).where(_STUDY_KEYS.c.study_uid == study)
    known = {(row.kind, row.value) for row in connection.execute(query).all()}
    new = {(key.kind.value, key.value) for key in keys} - known
    if new:
        connection.execute(
            insert(_STUDY_KEYS), [{"study_uid": study, "kind": kind, "value": value} for kind, value in sorted(new)]
        )


def _news(before: StudyContext | None, after: StudyContext, held: str, hold: str) -> list[tuple[str, str]]:
    """Lines for the study's story: what is new, without patient data."""
    news = []
    if _order_of(before) != _order_of(after):
        news.append(("order linked", f"by {after.matched_by}") if after.order else ("order unlinked", ""))
    if after.merges != (before.merges if before else 0):
        news.append(("patient merged", f"{after.merges} merges lead from the images' patient to the one of today"))
    elif before is not None and before.patient != after.patient:
        news.append(("patient updated", "the EHR has changed what it knows of the patient"))
    if len(after.reports) > len(before.reports if before else ()):
        news.append(("report signed", f"{len(after.reports)} final reports of the radiologist so far"))
    if hold and hold != held:
        news.append(("held", hold))
    elif held and not hold:
        news.append(("hold ended", "order and images agree now"))
    return news


def _order_of(context: StudyContext | None) -> tuple[Order, ...]:
    return context.order if context else ()


def _person(fact: Fact) -> Person:
    return fact.body.person if isinstance(fact.body, Order | Report) else Person()
