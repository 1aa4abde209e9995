"""The ledger's part for routing: studies to jobs, in one transaction."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select, tuple_, update

from gateway.domain.errors import NotFound
from gateway.domain.ids import JobId, StudyUID
from gateway.domain.job import JobDraft
from gateway.domain.ports import Clock
from gateway.domain.states import JobEvent, JobState, StudyEvent, StudyState
from gateway.domain.study import Study
from gateway.store import rows, schema
from gateway.store.engine import reading, writing
from gateway.store.indexing import Indexing
from gateway.store.runs import estimate_of

_SERIES = schema.series_index
_JOBS, _INSTANCES, _STUDIES, _INPUTS = schema.jobs, schema.instances, schema.studies, schema.job_inputs

# What a PACS sends back of our own results is no input.
_NOT_OURS = _INSTANCES.c.sop_instance_uid.not_in(select(schema.own_objects.c.sop_instance_uid))


class Routing(Indexing):
    """Implements `gateway.domain.ports.RoutingLedger` (but for `complete_studies`)."""

    engine: Any
    clock: Clock

    def study(self, study: StudyUID) -> Study:
        """All instances of a study that others made; raises NotFound."""
        with reading(self.engine) as connection:
            found = connection.execute(select(_INSTANCES).where(_INSTANCES.c.study_uid == study, _NOT_OURS)).all()
            known = found or connection.execute(select(_STUDIES.c.uid).where(_STUDIES.c.uid == study)).first()
        if not known:
            raise NotFound(f"no study {study} has arrived")
        return Study.of(study, (rows.to_instance(row) for row in found))

    def whole_studies(self, patient_ids: Collection[str]) -> Sequence[Study]:
        """Studies with one of these Patient IDs that are all here and that nothing is held back of."""
        wanted = [one for one in patient_ids if one]
        if not wanted:
            return []
        self.refresh_index()
        query = select(_SERIES.c.study_uid).where(_SERIES.c.patient_id.in_(wanted), _SERIES.c.job_id == "").distinct()
        with reading(self.engine) as connection:
            uids = _whole(connection, connection.execute(query).scalars().all())
        return [self.study(uid) for uid in sorted(uids)]

    def route(self, study: StudyUID, revision: int, jobs: Sequence[JobDraft], reason: str) -> Sequence[JobId]:
        """COMPLETE -> ROUTED or UNROUTED with its jobs; returns those that are new. Nothing happens if an instance came since,
        to it or to a prior of a job."""
        now = self.clock.now()
        with writing(self.engine) as connection:
            if not self._still(connection, study, revision, StudyState.COMPLETE):
                return []
            priors = frozenset[StudyUID]().union(*(draft.prior_studies for draft in jobs))
            if _whole(connection, priors) != priors:
                return []
            event = StudyEvent.JOBS_MADE if jobs else StudyEvent.NOTHING_TO_RUN
            rows.move_study(connection, study, event, reason=reason)
            rows.tell(connection, now, study, "routed" if jobs else "nothing to run", reason)
            return [draft.id for draft in jobs if self._add_job(connection, draft, now)]

    def quarantine_study(self, study: StudyUID, revision: int, reason: str, flags: Sequence[str] = ()) -> None:
        """OPEN or COMPLETE -> QUARANTINED, unless an instance came since `revision` was read."""
        with writing(self.engine) as connection:
            if self._still(connection, study, revision, StudyState.OPEN, StudyState.COMPLETE):
                rows.move_study(connection, study, StudyEvent.HELD_BACK, reason=reason, flags=list(flags))
                rows.tell(connection, self.clock.now(), study, "study quarantined", reason)

    def replay_study(self, study: StudyUID) -> None:
        """Routes a study again, with the rules of today; raises NotFound and IllegalTransition."""
        with writing(self.engine) as connection:
            if connection.execute(select(_STUDIES.c.uid).where(_STUDIES.c.uid == study)).first() is None:
                raise NotFound(f"no study {study} has arrived")
            rows.move_study(connection, study, StudyEvent.REPLAYED)
            rows.tell(connection, self.clock.now(), study, "replayed", "routing is done again by request")

    def _still(self, connection: Connection, study: StudyUID, revision: int, *states: StudyState) -> bool:
        query = select(_STUDIES.c.state, _STUDIES.c.revision).where(_STUDIES.c.uid == study)
        row = connection.execute(query).one()
        return StudyState(row.state) in states and bool(row.revision == revision)

    def _add_job(self, connection: Connection, draft: JobDraft, now: float) -> bool:
        known = connection.execute(select(_JOBS).where(_JOBS.c.id == draft.id)).one_or_none()
        if known is not None:
            self._hasten(connection, known, draft.priority)
            detail = f"{draft.model} has had exactly this input already; that job is {known.state}"
            rows.tell(connection, now, draft.study_uid, "job known", detail, draft.id)
            return False
        earlier = self._overtake(connection, draft, now)
        needs = estimate_of(connection, draft.model_digest, draft.voxels).memory_mib
        values = rows.draft_values(draft, now)
        values |= {"state": JobState.QUEUED.value, "supersedes": earlier, "memory_mib": needs}
        connection.execute(insert(_JOBS).values(**values))
        members = select(_INSTANCES.c.sop_instance_uid).where(
            tuple_(_INSTANCES.c.study_uid, _INSTANCES.c.series_uid).in_(draft.series), _NOT_OURS
        )
        uids = connection.execute(members).scalars().all()
        connection.execute(insert(_INPUTS), [{"job_id": draft.id, "sop_instance_uid": uid} for uid in uids])
        detail = f"{draft.model} on {len(uids)} instances of series {_named(draft)} by rule {draft.rule!r}"
        rows.tell(connection, now, draft.study_uid, "job queued", detail, draft.id)
        return True

    def _hasten(self, connection: Connection, job: Row[Any], priority: int) -> None:
        """An order that came after its images may be urgent: what still waits for a worker goes sooner then."""
        if job.state == JobState.QUEUED.value and priority < job.priority:
            connection.execute(update(_JOBS).where(_JOBS.c.id == job.id).values(priority=int(priority)))

    def _overtake(self, connection: Connection, draft: JobDraft, now: float) -> str | None:
        """Finds the version this job follows, and takes it out of the queue if it has not run yet.

        A model of several series has one answer for a study, whichever of them was its first.
        """
        same = _JOBS.c.study_uid == draft.study_uid
        query = (
            select(_JOBS)
            .where(same if draft.inputs else same & (_JOBS.c.series_uid == draft.series_uid))
            .where(_JOBS.c.model == draft.model, _JOBS.c.state != JobState.SUPERSEDED.value)
            .order_by(_JOBS.c.created_at.desc())
        )
        earlier = connection.execute(query).first()
        if earlier is None:
            return None
        if earlier.state == JobState.QUEUED.value:
            rows.move_job(connection, earlier, JobEvent.OVERTAKEN, reason=f"a newer input set is queued as {draft.id}")
            rows.tell(connection, now, draft.study_uid, "job superseded", f"newer input set: {draft.id}", earlier.id)
            return str(earlier.supersedes) if earlier.supersedes else None
        return str(earlier.id)


def _named(draft: JobDraft) -> str:
    return ", ".join(f"{item.series_uid} ({item.name})" for item in draft.inputs) or draft.series_uid


def _whole(connection: Connection, studies: Collection[str]) -> frozenset[StudyUID]:
    """Those that were released and routed, without a doubt about them, and whose patient nobody has questioned."""
    settled = _STUDIES.c.state.in_([StudyState.ROUTED.value, StudyState.UNROUTED.value])
    query = select(_STUDIES.c.uid, _STUDIES.c.flags).where(_STUDIES.c.uid.in_(studies), settled, _STUDIES.c.hold == "")
    return frozenset(StudyUID(row.uid) for row in connection.execute(query).all() if not row.flags)
