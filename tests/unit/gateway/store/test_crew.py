"""Memory and devices: what a job waits for, what is told of it, and that it does not wait for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.domain.crew import HERE, PATIENCE, OpenModel, Room, WorkerState
from gateway.domain.ids import JobId, Sha256
from gateway.domain.job import Claim
from gateway.store.ledger import SqlLedger
from tests.support.ledgers import make_ledger, outcome
from tests.support.received import STUDY
from tests.unit.gateway.store.test_jobs import queue

BIG, SMALL = Sha256("b" * 64), Sha256("c" * 64)


@pytest.fixture
def ledger(tmp_path: Path):  # type: ignore[no-untyped-def]
    made = make_ledger(tmp_path)
    yield made
    made.close()


def room(free: int, total: int = 16_000, host: str = "here") -> Room:
    return Room(host=host, free_mib=free, total_mib=total)


def worker(owner: str = "w", devices: tuple[str, ...] = ("cpu",), memory_mib: int = 16_000) -> WorkerState:
    return WorkerState(owner=owner, host="here", devices=devices, memory_mib=memory_mib)


def take(ledger: SqlLedger, free: int, owner: str = "w", **more: Any) -> Claim | None:
    return ledger.claim(owner, 600, room=room(free, **more))


def learn(ledger: SqlLedger, number: int, peak: int, seconds: float = 10.0, **more: Any) -> None:
    """A job that took so much."""
    [job] = queue(ledger, number, **more)
    claim = take(ledger, 16_000)
    assert claim is not None
    ledger.clock.time += seconds  # type: ignore[attr-defined]
    ledger.commit(claim, outcome(JobId(job)), peak)


def row(ledger: SqlLedger, job: str) -> dict[str, Any]:
    return next(item for item in ledger.list_jobs(100) if item["id"] == job)


def test_a_job_learns_from_others_also_while_it_waits(ledger: SqlLedger) -> None:
    """The same volume will take what it took before; one twice as large more, once two sizes are known; refusals teach nothing."""
    early, late = queue(ledger, 1, 2, model_digest=BIG, voxels=1000)
    claim = take(ledger, 16_000)
    assert claim is not None
    assert (row(ledger, late)["memory_mib"], row(ledger, late)["expected"]) == (None, None)
    ledger.clock.time += 30  # type: ignore[attr-defined]
    ledger.commit(claim, outcome(claim.job.id), 4000)
    assert (row(ledger, late)["memory_mib"], row(ledger, late)["expected"]) == (4000, 30)
    assert row(ledger, early)["left"] is None
    again = take(ledger, 16_000)
    assert again is not None
    assert again.expected.memory_mib == 4000
    ledger.clock.time += 12  # type: ignore[attr-defined]
    assert row(ledger, late)["left"] == 18
    ledger.commit(again, outcome(again.job.id, status="refused"), 9000)
    [third] = queue(ledger, 3, model_digest=BIG, voxels=1000)
    assert row(ledger, third)["memory_mib"] == 4000


def test_a_job_waits_while_another_holds_the_memory(ledger: SqlLedger) -> None:
    """What a job at work will still take counts, what it holds already does not count twice; the reason is told once; nothing
    of lower rank overtakes; and it starts when the other has ended."""
    learn(ledger, 1, 6000, model_digest=BIG)
    first, second = queue(ledger, 2, 3, model_digest=BIG)
    running = take(ledger, 8000, "w1")
    assert running is not None
    assert take(ledger, 8000, "w2") is None
    assert row(ledger, second)["waits"] == "MEMORY: the job needs about 6000 MiB, and 2000 MiB are free on here"
    ledger.clock.time += 10 * PATIENCE  # type: ignore[attr-defined]
    assert take(ledger, 7000, "w2") is None
    queue(ledger, 4, model_digest=SMALL)
    assert take(ledger, 8000, "w2") is None
    story = ledger.explain(f"{STUDY}.3")
    assert [event["what"] for event in story["events"]].count("job waits") == 1
    ledger.heartbeat(running, 600, "infer", 0.5, 5000)
    assert take(ledger, 6500, "w2") is None
    ledger.commit(running, outcome(JobId(first)), 6000)
    claim = take(ledger, 6500, "w2")
    assert claim is not None
    assert claim.job.id == second
    assert row(ledger, second)["waits"] == ""


def test_memory_of_another_machine_is_its_own(ledger: SqlLedger) -> None:
    """What runs elsewhere keeps nothing waiting here."""
    learn(ledger, 1, 6000, model_digest=BIG)
    queue(ledger, 2, 3, model_digest=BIG)
    assert take(ledger, 8000, "w1") is not None
    assert take(ledger, 8000, "w2", host="there") is not None


def test_a_job_that_is_alone_runs_anyway(ledger: SqlLedger) -> None:
    """Others than Hilum's jobs hold the memory: it waits a moment, so that idle workers can let go, and then runs."""
    learn(ledger, 1, 6000, model_digest=BIG)
    [job] = queue(ledger, 2, model_digest=BIG)
    assert take(ledger, 100) is None
    ledger.clock.time += PATIENCE - 1  # type: ignore[attr-defined]
    assert take(ledger, 100) is None
    ledger.clock.time += 1  # type: ignore[attr-defined]
    claim = take(ledger, 100)
    assert claim is not None
    assert claim.job.id == job


def test_what_is_too_large_for_one_machine_is_left_for_another(ledger: SqlLedger) -> None:
    """A worker whose machine is too small takes the jobs behind it; one that is large enough takes it."""
    learn(ledger, 1, 12_000, model_digest=BIG)
    [big] = queue(ledger, 2, model_digest=BIG)
    [small] = queue(ledger, 3, model_digest=SMALL)
    claim = take(ledger, 4000, total=8000)
    assert claim is not None
    assert claim.job.id == small
    assert take(ledger, 4000, total=8000) is None
    claim = take(ledger, 14_000, "w2", total=16_000, host="there")
    assert claim is not None
    assert claim.job.id == big


def test_what_no_worker_can_do_is_told_and_then_held_back(ledger: SqlLedger) -> None:
    """A device that nobody has, memory that nobody has: each with its code; workers that come late end the waiting."""
    learn(ledger, 1, 12_000, model_digest=BIG)
    [cuda] = queue(ledger, 2, device="cuda")
    [big] = queue(ledger, 3, model_digest=BIG)
    [fine] = queue(ledger, 4, model_digest=SMALL)
    ledger.attend(worker(memory_mib=8000))
    assert ledger.mark_stranded(3600) == []
    assert row(ledger, cuda)["waits"] == ""  # it has only just come
    ledger.clock.time += HERE  # type: ignore[attr-defined]
    ledger.attend(worker(memory_mib=8000))
    assert ledger.mark_stranded(3600) == []
    needs_cuda = "NO_DEVICE: the model needs cuda, and no worker has it (those that are there have cpu)"
    assert row(ledger, cuda)["waits"] == needs_cuda
    assert row(ledger, big)["waits"].startswith("NO_MEMORY: the job needs about 12000 MiB, and no worker can have")
    assert row(ledger, fine)["waits"] == ""
    ledger.attend(worker("large"))
    ledger.mark_stranded(3600)
    assert (row(ledger, big)["waits"], row(ledger, cuda)["waits"]) == ("", needs_cuda)
    ledger.clock.time += 3601  # type: ignore[attr-defined]
    ledger.attend(worker())
    assert ledger.mark_stranded(3600) == [(cuda, needs_cuda)]
    ledger.hold_back(JobId(cuda), needs_cuda)
    assert (row(ledger, cuda)["state"], row(ledger, cuda)["reason"]) == ("quarantined", needs_cuda)
    assert cuda in [item["id"] for item in ledger.dead_letters()["jobs"]]
    ledger.replay_job(JobId(cuda))
    assert ledger.mark_stranded(3600) == []


def test_where_there_is_no_worker_jobs_wait_and_say_so(ledger: SqlLedger) -> None:
    """A site whose workers are all away loses nothing by it, however long that takes."""
    [cuda] = queue(ledger, 1, device="cuda")
    [plain] = queue(ledger, 2)
    ledger.clock.time += 100_000  # type: ignore[attr-defined]
    for _ in range(2):
        assert ledger.mark_stranded(3600) == []
        assert {row(ledger, job)["waits"].partition(":")[0] for job in (cuda, plain)} == {"NO_WORKER"}
        ledger.clock.time += 100_000  # type: ignore[attr-defined]
    ledger.attend(worker())
    assert ledger.mark_stranded(3600) == []
    assert row(ledger, plain)["waits"] == ""
    assert row(ledger, cuda)["waits"].startswith("NO_DEVICE")


def test_who_is_there(ledger: SqlLedger) -> None:
    """A worker is there until it leaves, or has said nothing for a minute."""
    ledger.attend(worker("one"))
    two = WorkerState(
        owner="two", host="there", devices=("cuda", "cpu"), memory_mib=1, models=(OpenModel(digest="d", held_mib=5),)
    )
    ledger.attend(worker("two"))
    ledger.attend(two)
    assert list(ledger.workers()) == [worker("one"), two]
    ledger.clock.time += HERE - 1  # type: ignore[attr-defined]
    ledger.attend(two)
    ledger.clock.time += 2  # type: ignore[attr-defined]
    assert list(ledger.workers()) == [two]
    ledger.leave("two")
    assert list(ledger.workers()) == []
