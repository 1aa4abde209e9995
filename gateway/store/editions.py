"""The ledger's part for reports that follow the first: confirmations, corrections and cancellations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from gateway.domain.errors import NotFound, ReportRefused
from gateway.domain.ids import JobId
from gateway.domain.job import REFUSAL, DeliveryDraft, Edition, Job, Payload, ReportKind, refusal_edition
from gateway.domain.ports import Clock
from gateway.domain.states import JobEvent, JobState
from gateway.store import progress, rows, schema
from gateway.store.engine import reading, writing

_EDITIONS, _JOBS = schema.editions, schema.jobs
_REPORTED = (JobState.DELIVERING.value, JobState.DELIVERED.value, JobState.UNDELIVERED.value)
_TOLD = (*_REPORTED, JobState.RETRACTING.value)  # of a withdrawn result, that it is cancelled
_HAS_RESULT = (JobState.READY.value, *_REPORTED)
_ASKED = select(_EDITIONS).where(_EDITIONS.c.state == "asked").order_by(_EDITIONS.c.at, _EDITIONS.c.number)
_CONFIRMED = (ReportKind.FINAL.value,)
_WORDS = {
    ReportKind.PRELIMINARY: "result reported again",
    ReportKind.FINAL: "result confirmed",
    ReportKind.CORRECTED: "correction asked for",
    ReportKind.CANCELLED: "cancellation asked for",
}


class Editions:
    """Implements `gateway.domain.ports.EditionLedger`."""

    engine: Any
    clock: Clock

    def request_report(self, job: JobId, kind: ReportKind, *, by: str = "", reason: str = "") -> int:
        """Asks for one more edition of the report about a job, and returns its number. It is written and queued for every
        EHR of the job by the running gateway, behind all editions before it.

        Raises NotFound, and ReportRefused where there is no result that a report could be about, where a newer result
        has taken its place, or where the result is cancelled.
        """
        with writing(self.engine) as connection:
            row = _job(connection, job)
            before = _last(connection, job)
            if refusal := _refusal(connection, row, before, kind):
                raise ReportRefused(refusal)
            at = max(self.clock.now(), (before.at if before else row.finished_at or row.created_at) + 1.0)
            number = before.number + 1 if before else 2
            values = {"kind": kind.value, "at": at, "by": by, "reason": reason, "state": "asked", "note": ""}
            connection.execute(insert(_EDITIONS).values(job_id=job, number=number, **values))
            detail = "; ".join(filter(None, (f"by {by}" if by else "", reason))) or "by request"
            rows.tell(connection, self.clock.now(), row.study_uid, _WORDS[kind], detail, job)
            return int(number)

    def first_edition(self, job: Job) -> Edition:
        """The report that is made when a job is planned: preliminary, but a correction where it replaces a final one."""
        with reading(self.engine) as connection:
            before = _predecessors(connection, job.supersedes)
            final = any(_was_confirmed(connection, earlier) for earlier in before)
            follows = _was_refused(connection, job.id)
            count = _reported(connection, before)
        at = job.created_at if job.finished_at is None else job.finished_at
        if final:
            reason = "More images have come since the result was confirmed."
            kind = ReportKind.CORRECTED
            return Edition(job_id=job.id, number=1, kind=kind, at=at, reason=reason, follows=follows, earlier=count)
        return Edition(job_id=job.id, number=1, kind=ReportKind.PRELIMINARY, at=at, follows=follows, earlier=count)

    def edition(self, job: Job, number: int) -> Edition:
        """One edition of the report about a job; raises NotFound."""
        if number == REFUSAL:
            return refusal_edition(job)
        if number == 1:
            return self.first_edition(job)
        mine = (_EDITIONS.c.job_id == job.id, _EDITIONS.c.number == number)
        with reading(self.engine) as connection:
            row = connection.execute(select(_EDITIONS).where(*mine)).one_or_none()
            if row is None:
                raise NotFound(f"no edition {number} of the report about job {job.id}")
            return _edition(connection, row, job.supersedes)

    def unwritten_editions(self) -> Sequence[tuple[Job, Edition]]:
        """Editions that were asked for and whose messages are not in the outbox yet, in the order of asking."""
        with reading(self.engine) as connection:
            found = connection.execute(_ASKED).all()
            pairs = [(_job(connection, row.job_id), row) for row in found]
            return [
                (rows.to_job(job), _edition(connection, row, job.supersedes))
                for job, row in pairs
                if job.state in _TOLD
            ]

    def publish(self, edition: Edition, drafts: Sequence[DeliveryDraft]) -> None:
        """Puts the messages of an edition into the outbox; does nothing for one that is there already."""
        now = self.clock.now()
        with writing(self.engine) as connection:
            if not _close(connection, edition, "written"):
                return
            row = _job(connection, edition.job_id)
            if drafts:
                rows.move_job(connection, row, JobEvent.REPORTED)
                values = [rows.delivery_values(draft, now) for draft in drafts]
                connection.execute(insert(schema.deliveries), values)
            names = ", ".join(sorted({draft.destination for draft in drafts})) or "nowhere: no EHR is told of this job"
            rows.tell(connection, now, row.study_uid, f"{edition.kind.value} report queued", f"to {names}", row.id)
            progress.follow_up(connection, row.id, now)  # there may be nobody to tell

    def give_up_edition(self, edition: Edition, why: str) -> None:
        """No valid message can be written for it."""
        with writing(self.engine) as connection:
            if _close(connection, edition, "failed", why):
                row = _job(connection, edition.job_id)
                what = f"{edition.kind.value} report failed"
                rows.tell(connection, self.clock.now(), row.study_uid, what, why, row.id)
                progress.follow_up(connection, row.id, self.clock.now())


def _job(connection: Connection, job: str) -> Row[Any]:
    row = connection.execute(select(_JOBS).where(_JOBS.c.id == job)).one_or_none()
    if row is None:
        raise NotFound(f"no job {job}")
    return row


def _last(connection: Connection, job: str) -> Row[Any] | None:
    query = select(_EDITIONS).where(_EDITIONS.c.job_id == job).order_by(_EDITIONS.c.number.desc()).limit(1)
    return connection.execute(query).one_or_none()


def _refusal(connection: Connection, job: Row[Any], before: Row[Any] | None, kind: ReportKind) -> str:
    if job.state not in _HAS_RESULT:
        return f"job {job.id} is {job.state}: it has no result to report"
    newer = select(_JOBS.c.id).where(_JOBS.c.supersedes == job.id, _JOBS.c.state.in_(_HAS_RESULT))
    if (found := connection.execute(newer).scalars().first()) is not None:
        return f"job {job.id} has been replaced by {found}: report that one"
    if before is not None and before.kind == ReportKind.CANCELLED.value:
        return f"the result of job {job.id} is cancelled"
    if before is not None and before.kind == kind.value == ReportKind.FINAL.value:
        return f"the result of job {job.id} is confirmed already, by {before.by}"
    return ""


def _was_confirmed(connection: Connection, job: str) -> bool:
    query = select(_EDITIONS.c.number).where(_EDITIONS.c.job_id == job, _EDITIONS.c.kind.in_(_CONFIRMED))
    return connection.execute(query).first() is not None


def _was_refused(connection: Connection, job: str) -> bool:
    """Whether an EHR was told that this job's images were not processed, before it was done again."""
    table = schema.deliveries
    found = connection.execute(select(table.c.about).where(table.c.job_id == job, table.c.about.is_not(None))).scalars()
    return any(about and about["edition"] == REFUSAL for about in found)


def _close(connection: Connection, edition: Edition, state: str, note: str = "") -> bool:
    mine = (_EDITIONS.c.job_id == edition.job_id, _EDITIONS.c.number == edition.number, _EDITIONS.c.state == "asked")
    return bool(connection.execute(update(_EDITIONS).where(*mine).values(state=state, note=note)).rowcount)


def _predecessors(connection: Connection, job: str | None) -> list[str]:
    """A job and all in whose place it came, latest first."""
    found = []
    while job is not None:
        found.append(job)
        job = connection.execute(select(_JOBS.c.supersedes).where(_JOBS.c.id == job)).scalar_one()
    return found


def _reported(connection: Connection, jobs: Sequence[str]) -> int:
    """How many editions of reports about these jobs' results there were."""
    table = schema.deliveries
    messages = select(table.c.about).where(table.c.payload == Payload.MESSAGE.value)
    count = 0
    for job in jobs:
        told = connection.execute(messages.where(table.c.job_id == job)).scalars()
        asked = _last(connection, job)
        count += max([about["edition"] if about else 1 for about in told] + [asked.number if asked else 0], default=0)
    return count


def _edition(connection: Connection, row: Row[Any], supersedes: str | None) -> Edition:
    return Edition(
        job_id=JobId(row.job_id),
        number=row.number,
        kind=ReportKind(row.kind),
        at=row.at,
        by=row.by,
        reason=row.reason,
        verified=_was_confirmed(connection, row.job_id),
        earlier=_reported(connection, _predecessors(connection, supersedes)),
    )
