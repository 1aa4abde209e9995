"""The ledger's part for people: what happened, as plain values ready for a table or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, Table, func, select

from gateway.domain import schedule
from gateway.domain.context import Fact, Order
from gateway.domain.errors import NotFound
from gateway.domain.estimate import estimate
from gateway.domain.ports import Clock
from gateway.domain.states import DeliveryState, InboundState, JobState, StudyState
from gateway.store import queue, rows, schema
from gateway.store.engine import reading
from gateway.store.intake import study_query
from gateway.store.runs import runs_of

_PLACES = 200  # of the queue that are told
_NO_TIMES: dict[str, float | None] = {"expected": None, "left": None}  # of a job that has ended

_DELIVERY_COLUMNS = (
    "id",
    "job_id",
    "destination",
    "role",
    "key",
    "state",
    "attempts",
    "next_try",
    "last_answer",
    "stored_at",
    "created_at",
    "delivered_at",
    "checks",
    "transaction_uid",
)
_JOB_COLUMNS = (
    "id", "study_uid", "series_uid", "model", "model_digest", "rule", "state", "priority", "attempts_failed", "attempts_lost",
    "reason", "supersedes", "created_at", "started_at", "finished_at", "sender", "deadline", "stage", "fraction", "outcome",
    "device", "voxels", "memory_mib", "waits",
)  # fmt: skip
_INBOUND_COLUMNS = (
    "id", "sender", "control_id", "address", "kind", "state", "reason", "size", "copies", "received_at",
)  # fmt: skip


class Reading:
    """Answers for the commands that read."""

    engine: Any
    clock: Clock

    def list_studies(self, limit: int = 50) -> Sequence[dict[str, Any]]:
        """The newest studies first."""
        return self._all(study_query().order_by(None).order_by(schema.studies.c.last_stored_at.desc()).limit(limit))

    def list_jobs(
        self, limit: int = 50, *, states: Sequence[JobState] = (), study: str = ""
    ) -> Sequence[dict[str, Any]]:
        """The newest jobs first."""
        table = schema.jobs
        query = _columns(table, _JOB_COLUMNS).order_by(table.c.created_at.desc()).limit(limit)
        if states:
            query = query.where(table.c.state.in_([state.value for state in states]))
        found = self._all(query.where(table.c.study_uid == study) if study else query)
        places = self._places() if any(row["state"] == JobState.QUEUED.value for row in found) else {}
        times = self._times(found)
        return [row | {"place": places.get(row["id"])} | times.get(row["id"], _NO_TIMES) for row in found]

    def _times(self, jobs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
        """Of jobs that wait or run: how long each is expected to take, and what is left of that; both in seconds."""
        now = self.clock.now()
        coming = [job for job in jobs if job["state"] in (JobState.QUEUED.value, JobState.RUNNING.value)]
        with reading(self.engine) as connection:
            known = {digest: runs_of(connection, digest) for digest in {job["model_digest"] for job in coming}}
        times: dict[str, dict[str, float | None]] = {}
        for job in coming:
            takes = estimate(known[job["model_digest"]], job["voxels"]).seconds
            gone = now - job["started_at"] if job["state"] == JobState.RUNNING.value else 0.0
            times[job["id"]] = {"expected": takes, "left": None if takes is None else max(takes - gone, 0.0)}
        return times

    def _places(self) -> dict[str, int]:
        """Queued job -> its place, from 1: how many one worker would do before and with it; far ones have none."""
        now = self.clock.now()
        with reading(self.engine) as connection:
            waiting = queue.all_waiting(connection, now)
        return {job: place for place, job in enumerate(schedule.foreseen(waiting, now, _PLACES), start=1)}

    def list_deliveries(
        self, limit: int = 50, *, states: Sequence[DeliveryState] = (), study: str = ""
    ) -> Sequence[dict[str, Any]]:
        """The newest deliveries first."""
        table, jobs = schema.deliveries, schema.jobs
        query = _columns(table, _DELIVERY_COLUMNS).order_by(table.c.id.desc()).limit(limit)
        if states:
            query = query.where(table.c.state.in_([state.value for state in states]))
        return self._all(
            query.join(jobs, jobs.c.id == table.c.job_id).where(jobs.c.study_uid == study) if study else query
        )

    def list_messages(self, limit: int = 50, *, states: Sequence[InboundState] = ()) -> Sequence[dict[str, Any]]:
        """The newest messages from the EHR first, without their content."""
        table = schema.inbound
        query = _columns(table, _INBOUND_COLUMNS).order_by(table.c.id.desc()).limit(limit)
        return self._all(query.where(table.c.state.in_([state.value for state in states])) if states else query)

    def stories(self, deliveries: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
        """What happened to each of these deliveries, in order."""
        table = schema.events
        query = _columns(table, ("at", "what", "detail", "delivery_id")).where(table.c.delivery_id.in_(deliveries))
        found: dict[int, list[dict[str, Any]]] = {number: [] for number in deliveries}
        for row in self._all(query.order_by(table.c.id)):
            found[row.pop("delivery_id")].append(row)
        return found

    def list_orders(self, limit: int = 50) -> Sequence[dict[str, Any]]:
        """What was ordered, the newest message first, with the studies that may belong to it; without the patient."""
        table = schema.facts
        query = select(table).where(table.c.kind == rows.fact_kind(Order)).order_by(table.c.id.desc()).limit(limit)
        with reading(self.engine) as connection:
            found = connection.execute(query).all()
            return [
                _order_line(row.message_id, rows.to_fact(row), self._studies_of(connection, row.id)) for row in found
            ]

    def _studies_of(self, connection: Connection, fact: int) -> list[str]:
        keys, named = schema.study_keys, schema.fact_keys
        same = (keys.c.kind == named.c.kind) & (keys.c.value == named.c.value)
        query = select(keys.c.study_uid).join(named, same).where(named.c.fact_id == fact).distinct()
        return list(connection.execute(query).scalars())

    def dead_letters(self) -> dict[str, Sequence[dict[str, Any]]]:
        """Everything that was given up or held back, and can be replayed."""
        studies = self._all(study_query().where(schema.studies.c.state == StudyState.QUARANTINED.value))
        return {
            "studies": studies,
            "jobs": self.list_jobs(10_000, states=(JobState.DEAD, JobState.QUARANTINED)),
            "deliveries": self.list_deliveries(10_000, states=(DeliveryState.DEAD,)),
            "conflicts": self._all(select(schema.conflicts)),
            "held": self._all(study_query().where(schema.studies.c.hold != "")),
            "messages": self.list_messages(10_000, states=(InboundState.UNREADABLE, InboundState.CONFLICT)),
        }

    def explain(self, study: str) -> dict[str, Any]:
        """All that is known of one study; raises NotFound."""
        found = self._all(study_query().where(schema.studies.c.uid == study))
        if not found:
            raise NotFound(f"no study {study} has arrived")
        jobs = self.list_jobs(1000, study=study)
        events = select(schema.events).where(schema.events.c.study_uid == study).order_by(schema.events.c.id)
        return {
            "study": found[0],
            "series": self._series(study),
            "conflicts": self._all(select(schema.conflicts).where(schema.conflicts.c.study_uid == study)),
            "evidence": self._all(
                select(schema.evidence).where(schema.evidence.c.study_uid == study).order_by(schema.evidence.c.id)
            ),
            "jobs": jobs[::-1],
            "priors": self._priors(study),
            "deliveries": self.list_deliveries(10_000, study=study)[::-1],
            "ehr": self._ehr(study),
            "events": self._all(events),
        }

    def _ehr(self, study: str) -> dict[str, Any]:
        """What the EHR has told about a study, without saying who the patient is."""
        query = select(schema.studies.c.context, schema.studies.c.hold).where(schema.studies.c.uid == study)
        with reading(self.engine) as connection:
            row = connection.execute(query).one()
        context = rows.to_context(row.context)
        if context is None:
            return {}
        return {
            "order": _order_values(context.order[0]) if context.order else None,
            "matched_by": context.matched_by,
            "merges": context.merges,
            "reports": [report.status for report in context.reports],
            "mismatch": context.mismatch,
            "held": row.hold,
        }

    def _priors(self, study: str) -> list[dict[str, Any]]:
        """Which series of earlier studies its jobs were given."""
        with reading(self.engine) as connection:
            jobs = connection.execute(select(schema.jobs).where(schema.jobs.c.study_uid == study)).all()
            return [
                {"job_id": job.id, "input": one["name"], "study_uid": one["study_uid"], "series_uid": one["series_uid"]}
                | _dated(connection, one["study_uid"], one["series_uid"])
                for job in sorted(jobs, key=lambda job: float(job.created_at))
                for one in job.inputs or ()
                if one.get("study_uid")
            ]

    def _series(self, study: str) -> Sequence[dict[str, Any]]:
        table = schema.instances
        query = (
            select(
                table.c.series_uid,
                func.count().label("instances"),
                func.min(table.c.received_at).label("first_at"),
                func.max(table.c.received_at).label("last_at"),
                func.min(table.c.calling_ae).label("calling_ae"),
                func.min(table.c.header["modality"].as_string()).label("modality"),
            )
            .where(table.c.study_uid == study)
            .group_by(table.c.series_uid)
        )
        return self._all(query)

    def _all(self, query: Select[Any]) -> list[dict[str, Any]]:
        with reading(self.engine) as connection:
            return [dict(row._mapping) for row in connection.execute(query).all()]


def _dated(connection: Connection, study: str, series: str) -> dict[str, Any]:
    table = schema.instances
    query = select(table.c.header).where(table.c.study_uid == study, table.c.series_uid == series).limit(1)
    header = rows.to_header(connection.execute(query).scalar_one())
    return {"study_date": header.study_date, "series_number": header.series_number}


def _order_line(message: int, fact: Fact, studies: list[str]) -> dict[str, Any]:
    return {"message": message, "at": fact.at, **_order_values(fact.body), "studies": studies}


def _order_values(order: Any) -> dict[str, Any]:
    return {
        "control": order.control,
        "accession_number": order.accession_number,
        "placer_number": order.placer_number[0].id if order.placer_number else "",
        "filler_number": order.filler_number[0].id if order.filler_number else "",
        "procedure": order.procedure[0].meaning or order.procedure[0].value if order.procedure else "",
        "procedure_code": order.procedure[0].value if order.procedure else "",
        "modality": order.modality,
        "priority": order.priority,
    }


def _columns(table: Table, names: Sequence[str]) -> Select[Any]:
    return select(*(table.c[name] for name in names))
