"""Whose turn it is, whatever waits: nothing is lost, nobody starves, nobody waits behind what is less urgent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.schedule import BATCH, FRESH, Waiting, foreseen, pick

JOBS = st.lists(
    st.builds(
        Waiting,
        id=st.uuids().map(str),
        priority=st.sampled_from([0, 10, 20, 30]),
        sender=st.sampled_from("ABCD"),
        model_digest=st.sampled_from("xyz"),
        deadline=st.none() | st.floats(0, 2000),
        created_at=st.floats(0, 1000),
    ),
    max_size=40,
    unique_by=lambda job: job.id,
)


def run(jobs: list[Waiting]) -> Iterator[tuple[Waiting, list[Waiting]]]:
    """Each job that one worker takes, and what waited beside it; a job takes a second."""
    left, turn, now = list(jobs), FRESH, 1000.0
    while (found := pick(left, turn, now)) is not None:
        chosen, turn = found
        now += 1
        yield chosen, left
        left = [
            replace(job, served_at=now) if job.sender == chosen.sender else job for job in left if job.id != chosen.id
        ]


@given(JOBS)
@settings(max_examples=60, deadline=None)
def test_everything_once_and_the_urgent_first(jobs: list[Waiting]) -> None:
    """Every job comes out once; never one while a more urgent one waits, so STAT begins after the job at hand."""
    taken = [chosen for chosen, left in run(jobs) if chosen.priority == min(job.priority for job in left)]
    assert sorted(job.id for job in taken) == sorted(job.id for job in jobs)


@given(JOBS)
@settings(max_examples=60, deadline=None)
def test_nobody_waits_longer_than_a_round(jobs: list[Waiting]) -> None:
    """However much others have sent: between two turns of a sender, or before its first, lie few jobs of its priority."""
    waited: dict[tuple[str, int], int] = {}
    for chosen, left in run(jobs):
        for sender in {job.sender for job in left if job.priority == chosen.priority} - {chosen.sender}:
            key = sender, chosen.priority
            waited[key] = waited.get(key, 0) + 1
            assert waited[key] <= 2 * 4 * (BATCH + 1)
        waited[chosen.sender, chosen.priority] = 0


def test_a_thousand_jobs_keep_nobody_waiting() -> None:
    """Same model, same priority, deadlines that have all passed: the other sender is third at the latest."""
    flood = [
        Waiting(id=f"a{n}", priority=20, sender="A", model_digest="x", deadline=1.0, created_at=n) for n in range(1000)
    ]
    other = Waiting(id="b", priority=20, sender="B", model_digest="x", deadline=None, created_at=5000)
    order = [chosen.id for (chosen, _), _ in zip(run([*flood, other]), range(4), strict=False)]
    assert "b" in order[:3]


@given(JOBS)
@settings(max_examples=20, deadline=None)
def test_models_stay_loaded(jobs: list[Waiting]) -> None:
    """Without deadlines, models that are loaded go on while there is work for them in their priority, up to a batch."""
    loaded: set[str] = set()
    streak = 0
    for chosen, left in run([replace(job, deadline=None) for job in jobs]):
        lane = {job.model_digest for job in left if job.priority == chosen.priority}
        assert chosen.model_digest in loaded or not loaded & lane or streak >= BATCH
        streak = streak + 1 if chosen.model_digest in loaded else 1
        loaded.add(chosen.model_digest)


@given(JOBS)
@settings(max_examples=20, deadline=None)
def test_what_is_foreseen_is_what_comes(jobs: list[Waiting]) -> None:
    """Each job has one place, and it is the one in which a worker takes it, as long as no deadline comes near."""
    far = [replace(job, deadline=None) for job in jobs]
    assert list(foreseen(far, 1000.0, 100)) == [chosen.id for chosen, _ in run(far)]
