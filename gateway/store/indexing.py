"""Keeps the index that searches use up to date: by study revision for what arrives, by job for what Hilum makes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, insert, select
from sqlalchemy.exc import IntegrityError

from gateway.domain.archive import Held, ResultFile
from gateway.domain.ids import JobId
from gateway.domain.states import JobState
from gateway.domain.study import Header
from gateway.store import rows, schema
from gateway.store.engine import reading, writing

_INSTANCES, _STUDIES, _JOBS = schema.instances, schema.studies, schema.jobs
_SERIES, _RESULTS = schema.series_index, schema.result_index

_AT_ONCE = 200  # studies or jobs in one transaction: receiving must not wait long for it

_SHOWN = [state.value for state in (JobState.READY, JobState.DELIVERING, JobState.DELIVERED, JobState.UNDELIVERED)]

NOT_OURS = _INSTANCES.c.sop_instance_uid.not_in(select(schema.own_objects.c.sop_instance_uid))
"""What a PACS sent back of our own results is shown once, as a result."""


def shown(job_id: Any) -> ColumnElement[bool]:
    """Of a row's job: a result shows when its job is finished and nobody holds it back."""
    column: ColumnElement[bool] = job_id.in_(select(_JOBS.c.id).where(_JOBS.c.state.in_(_SHOWN)))
    return column


class Indexing:
    """The part of `gateway.domain.archive.Archive` that writes."""

    engine: Any

    def unindexed(self) -> Sequence[ResultFile]:
        """Result objects of finished jobs whose header nobody has read yet."""
        done = select(schema.indexed_jobs.c.job_id)
        query = select(_JOBS.c.id, _JOBS.c.outcome).where(_JOBS.c.state.in_(_SHOWN), _JOBS.c.id.not_in(done))
        with reading(self.engine) as connection:
            found = connection.execute(query.limit(_AT_ONCE)).all()
        return [
            ResultFile(job_id=JobId(row.id), file=item["file"], size=item["size"], sha256=item["sha256"])
            for row in found
            for item in (row.outcome or {}).get("objects", ())
        ]

    def index_results(self, job: JobId, results: Sequence[Held]) -> None:
        """Remembers the headers of a job's results; another process may have been faster."""
        with writing(self.engine) as connection, suppress(IntegrityError), connection.begin_nested():
            known = select(schema.indexed_jobs.c.job_id).where(schema.indexed_jobs.c.job_id == job)
            if connection.execute(known).first() is None:
                _add_results(connection, job, results)

    def refresh_index(self) -> None:
        """Indexes the series of studies in which something has arrived since."""
        while stale := self._stale():
            with writing(self.engine) as connection:
                for study, revision in stale:
                    _rebuild(connection, study, revision)

    def _stale(self) -> list[tuple[str, int]]:
        done = schema.indexed_studies
        query = (
            select(_STUDIES.c.uid, _STUDIES.c.revision)
            .outerjoin(done, done.c.study_uid == _STUDIES.c.uid)
            .where(done.c.revision.is_(None) | (done.c.revision != _STUDIES.c.revision))
            .limit(_AT_ONCE)
        )
        with reading(self.engine) as connection:
            return [(row.uid, row.revision) for row in connection.execute(query).all()]


def _rebuild(connection: Connection, study: str, revision: int) -> None:
    connection.execute(delete(_SERIES).where(_SERIES.c.study_uid == study, _SERIES.c.job_id == ""))
    connection.execute(delete(schema.indexed_studies).where(schema.indexed_studies.c.study_uid == study))
    found = connection.execute(select(_INSTANCES).where(_INSTANCES.c.study_uid == study, NOT_OURS)).all()
    _add_series(connection, [to_held(row, "") for row in found], "")
    connection.execute(insert(schema.indexed_studies).values(study_uid=study, revision=revision))


def _add_results(connection: Connection, job: JobId, results: Sequence[Held]) -> None:
    for held in results:
        values = rows_of(held) | {"job_id": job, "sha256": held.sha256, "size": held.size, "file": held.file}
        connection.execute(insert(_RESULTS).values(**values))
    _add_series(connection, results, job)
    connection.execute(insert(schema.indexed_jobs).values(job_id=job))


def forget_results(connection: Connection, job: str) -> None:
    """What is known of a job's results no longer holds: they are read again when somebody asks for them."""
    for table in (_RESULTS, _SERIES, schema.indexed_jobs):
        connection.execute(delete(table).where(table.c.job_id == job))


def _add_series(connection: Connection, instances: Iterable[Held], job: str) -> None:
    groups: dict[str, list[Held]] = {}
    for held in instances:
        groups.setdefault(held.header.series_uid, []).append(held)
    for members in groups.values():
        first = min(members, key=lambda held: held.header.sop_instance_uid)
        connection.execute(insert(_SERIES).values(**_series_values(first, members), job_id=job))


def _series_values(first: Held, members: Sequence[Held]) -> dict[str, Any]:
    header = first.header
    own = {column.name for column in _SERIES.columns} & {field.name for field in dataclasses.fields(Header)}
    return {
        **{name: getattr(header, name) for name in own},
        "patient_id": header.patient.patient_id,
        "patient_name": header.patient.name,
        "birth_date": header.patient.birth_date,
        "sex": header.patient.sex,
        "instances": len(members),
        "sop_classes": sorted({held.header.sop_class_uid for held in members}),
        "file": first.file,
        "header": dataclasses.asdict(header),
    }


def rows_of(held: Held) -> dict[str, Any]:
    """The identifying columns of an instance, and its header."""
    header = held.header
    return {
        "sop_instance_uid": header.sop_instance_uid,
        "series_uid": header.series_uid,
        "study_uid": header.study_uid,
        "header": dataclasses.asdict(header),
    }


def to_held(row: Any, job_id: str) -> Held:
    """A row of an instance as a record."""
    return Held(header=rows.to_header(row.header), file=row.file, size=row.size, sha256=row.sha256, job_id=job_id)
