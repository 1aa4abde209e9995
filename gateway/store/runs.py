"""What jobs have taken, kept for each model's build, and what those that wait will take."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select, update

from gateway.domain.estimate import MEMORY, Estimate, Run, estimate
from gateway.domain.states import JobState
from gateway.store import schema

_JOBS, _RUNS = schema.jobs, schema.model_runs


def runs_of(connection: Connection, digest: str) -> Sequence[Run]:
    """The latest runs of a build."""
    query = select(_RUNS).where(_RUNS.c.model_digest == digest).order_by(_RUNS.c.id.desc()).limit(MEMORY)
    return [
        Run(voxels=row.voxels, seconds=row.seconds, peak_mib=row.peak_mib) for row in connection.execute(query).all()
    ]


def estimate_of(connection: Connection, digest: str, voxels: int) -> Estimate:
    """What a job of this build on a volume of this size will take."""
    return estimate(runs_of(connection, digest), voxels)


def learn(connection: Connection, digest: str, run: Run, now: float) -> None:
    """Keeps what a job took, lets go of what is old, and tells the jobs of this build that wait what they will need."""
    values = {**vars(run), "model_digest": digest, "at": now}
    connection.execute(insert(_RUNS).values(**values))
    old = select(_RUNS.c.id).where(_RUNS.c.model_digest == digest).order_by(_RUNS.c.id.desc()).offset(MEMORY)
    connection.execute(delete(_RUNS).where(_RUNS.c.id.in_(connection.execute(old).scalars().all())))
    known = runs_of(connection, digest)
    waiting = (_JOBS.c.model_digest == digest, _JOBS.c.state == JobState.QUEUED.value)
    for size in connection.execute(select(_JOBS.c.voxels).where(*waiting).distinct()).scalars().all():
        needs = estimate(known, size).memory_mib
        same = (*waiting, _JOBS.c.voxels == size, _JOBS.c.memory_mib.is_distinct_from(needs))
        connection.execute(update(_JOBS).where(*same).values(memory_mib=needs))
