"""Who goes first. Pure: what waits, whose turn it is and the time come in, one job goes out.

Priority decides alone. Within one priority a job whose deadline is near goes first, but only every other time; else the
models that are loaded already go on, for a few jobs; else whoever has waited longest for a turn has it, so that a
thousand jobs of one sender keep nobody waiting for more than a round.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

BATCH = 8
"""Jobs of loaded models in a row, where others wait for another model: opening one costs seconds."""

NEAR = 300.0
"""Seconds before its deadline from which a job is hurried."""

NEVER = -math.inf


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A job in the queue."""

    id: str
    priority: int  # lower is sooner
    sender: str  # AE title of whoever sent the images
    model_digest: str
    deadline: float | None  # seconds since the epoch
    created_at: float
    served_at: float = NEVER  # when a job of the same sender was started last


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What a worker has done last."""

    warm: frozenset[str] = frozenset()  # digests of the models that are loaded
    streak: int = 0  # jobs of them in a row
    hurried: bool = False  # the last one went first because of its deadline


FRESH = Turn()
"""Of a worker that has done nothing yet."""


def pick(waiting: Sequence[Waiting], turn: Turn, now: float) -> tuple[Waiting, Turn] | None:
    """The next job and the turn after it; None where nothing waits. Of each sender and model the head is enough."""
    if not waiting:
        return None
    first = min(job.priority for job in waiting)
    lane = [job for job in waiting if job.priority == first]
    near = [job for job in lane if job.deadline is not None and job.deadline - now < NEAR]
    hurried = bool(near) and not turn.hurried
    if hurried:
        chosen = min(near, key=head)
    else:
        warm = [job for job in lane if job.model_digest in turn.warm] if turn.streak < BATCH else []
        chosen = min(warm or lane, key=lambda job: (job.served_at, *head(job)))
    streak = turn.streak + 1 if chosen.model_digest in turn.warm else 1
    return chosen, Turn(warm=turn.warm | {chosen.model_digest}, streak=streak, hurried=hurried)


def head(job: Waiting) -> tuple[float, float, str]:
    """Order of one sender's jobs of one priority: earliest deadline, then age."""
    return (math.inf if job.deadline is None else job.deadline, job.created_at, job.id)


def foreseen(waiting: Sequence[Waiting], now: float, most: int) -> Iterator[str]:
    """Ids in the order in which one worker would take them, as far as can be told now."""
    lanes: dict[tuple[int, str, str], list[Waiting]] = {}
    for job in sorted(waiting, key=head, reverse=True):
        lanes.setdefault((job.priority, job.sender, job.model_digest), []).append(job)
    served = {job.sender: job.served_at for job in waiting}
    turn = FRESH
    for step in range(min(most, len(waiting))):
        heads = [replace(lane[-1], served_at=served[lane[-1].sender]) for lane in lanes.values() if lane]
        found = pick(heads, turn, now)
        if found is None:
            return
        chosen, turn = found
        lanes[chosen.priority, chosen.sender, chosen.model_digest].pop()
        served[chosen.sender] = now + 1 + step
        yield chosen.id
