"""What workers do to the ledger: claims, leases, attempts, commits."""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
from collections import Counter
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.errors import LeaseLost, NotFound
from gateway.domain.estimate import UNKNOWN
from gateway.domain.ids import JobId, Sha256
from gateway.domain.job import Claim, Priority
from gateway.domain.schedule import Turn
from gateway.domain.states import IllegalTransition, JobState
from gateway.store.engine import LeaseClock, open_engine
from gateway.store.ledger import SqlLedger
from tests.support.ledgers import draft, make_ledger, outcome
from tests.support.received import STUDY, MovedClock, instance


@pytest.fixture
def ledger(tmp_path: Path):  # type: ignore[no-untyped-def]
    made = make_ledger(tmp_path)
    yield made
    made.close()


def queue(ledger: SqlLedger, *numbers: int, **more: object) -> list[str]:
    """Queues one job for each number, each in a study of its own, in this order."""
    ids = []
    for number in numbers:
        study = f"{STUDY}.{number}"
        ledger.add_instance(instance(number, study=study, series=f"{study}.1", at=ledger.clock.now()))
        record = next(item for item in ledger.open_studies() if item.uid == study)
        ledger.release(record.uid, record.revision, "quiet")
        job = dataclasses.replace(draft(number, study=study, series=f"{study}.1"), **more)  # type: ignore[arg-type]
        ids += ledger.route(record.uid, record.revision, [job], "r")
        ledger.clock.time += 1  # type: ignore[attr-defined]
    return ids


def claimed(ledger: SqlLedger, **more: Any) -> Claim:
    claim = ledger.claim("w", 60, **more)
    assert claim is not None
    return claim


def test_the_best_job_comes_first(ledger: SqlLedger) -> None:
    """Priority before a warm model before age."""
    [late_stat] = queue(ledger, 9, priority=Priority.STAT)
    warm = Sha256("f" * 64)
    [old, middle] = queue(ledger, 1, 2)
    [fits] = queue(ledger, 3, model_digest=warm)
    [urgent] = queue(ledger, 4, priority=Priority.URGENT)
    turn = Turn(warm=frozenset({warm}))
    assert [claimed(ledger, turn=turn).job.id for _ in range(5)] == [late_stat, urgent, fits, old, middle]
    assert ledger.claim("w", 60) is None


def test_everybody_has_a_turn(ledger: SqlLedger) -> None:
    """A sender's ten jobs do not keep another's one waiting; a deadline comes first; a device waits for its worker."""
    many = queue(ledger, *range(10, 15), sender="A")
    [one] = queue(ledger, 20, sender="B")
    first = claimed(ledger)
    ledger.clock.time += 1  # type: ignore[attr-defined]
    assert [first.job.id, claimed(ledger).job.id] == [many[0], one]
    [gpu] = queue(ledger, 30, device="cuda", priority=Priority.STAT)
    [due] = queue(ledger, 31, sender="A", due_in=60.0)
    [night] = queue(ledger, 32, priority=Priority.OFF_PEAK)
    places = {row["id"]: row["place"] for row in ledger.list_jobs(50)}
    assert (places[gpu], places[due], places[night]) == (1, 2, 7)
    assert claimed(ledger).job.id == due
    assert claimed(ledger, devices=("cuda", "cpu")).job.id == gpu
    assert {claimed(ledger).job.id for _ in range(4)} == set(many[1:])
    assert ledger.claim("w", 60, least=Priority.ROUTINE) is None
    assert claimed(ledger).job.id == night


def test_how_far_a_job_is(ledger: SqlLedger) -> None:
    """A heartbeat says stage and fraction; a model that has given results is known by its time."""
    [job] = queue(ledger, 1)
    claim = claimed(ledger)
    assert claim.expected == UNKNOWN
    ledger.heartbeat(claim, 60, "infer", 0.4)
    (row,) = ledger.list_jobs()
    assert (row["stage"], row["fraction"]) == ("infer", 0.4)
    ledger.clock.time += 12  # type: ignore[attr-defined]
    ledger.commit(claim, outcome(job))
    (row,) = ledger.list_jobs()
    assert (row["stage"], row["fraction"]) == ("", None)
    queue(ledger, 2)
    assert claimed(ledger).expected.seconds == 12


def test_three_failures_are_enough(ledger: SqlLedger) -> None:
    """A model that always fails runs three times; the reason is kept and other jobs go on."""
    [bad] = queue(ledger, 1)
    states = [ledger.fail(claimed(ledger), f"exit {number}") for number in range(3)]
    assert states == [JobState.QUEUED, JobState.QUEUED, JobState.DEAD]
    assert ledger.claim("w", 60) is None
    assert ledger.dead_letters()["jobs"][0]["reason"] == "exit 2"
    [good] = queue(ledger, 2)
    assert claimed(ledger).job.id == good != bad


def test_lost_workers_are_not_the_models_fault(ledger: SqlLedger) -> None:
    """Losses are counted apart, up to ten; failures in between stay failures."""
    [job] = queue(ledger, 1)
    ledger.fail(claimed(ledger), "crashed")
    for _ in range(9):
        claimed(ledger)
        assert ledger.take_back("w") == [job]
    row = ledger.list_jobs()[0]
    assert (row["state"], row["attempts_failed"], row["attempts_lost"]) == ("queued", 1, 9)
    claimed(ledger)
    ledger.take_back("w")
    assert ledger.list_jobs()[0]["state"] == "dead"


def test_giving_back_costs_nothing(ledger: SqlLedger) -> None:
    """A worker that is stopped uses up no attempt, and is not the holder any more."""
    queue(ledger, 1)
    for _ in range(12):
        claim = claimed(ledger)
        ledger.give_back(claim)
        with pytest.raises(LeaseLost):
            ledger.heartbeat(claim, 60)
    row = ledger.list_jobs()[0]
    assert (row["state"], row["attempts_failed"], row["attempts_lost"]) == ("queued", 0, 0)


def test_leases_run_out_by_their_own_clock(ledger: SqlLedger) -> None:
    """Wall time may jump; only the lease clock ends a lease, a heartbeat prolongs it, another boot ends it."""
    [job] = queue(ledger, 1)
    claim = claimed(ledger)
    ledger.clock.time += 1e6  # type: ignore[attr-defined]
    ledger.lease_clock.time += 59  # type: ignore[attr-defined]
    assert ledger.take_back() == []
    ledger.heartbeat(claim, 60)
    ledger.lease_clock.time += 59  # type: ignore[attr-defined]
    assert ledger.take_back() == []
    ledger.lease_clock.time += 2  # type: ignore[attr-defined]
    assert ledger.take_back() == [job]
    claimed(ledger)
    ledger.lease_clock.epoch = "boot 2"
    assert ledger.take_back() == [job]


def test_a_stale_holder_changes_nothing(ledger: SqlLedger) -> None:
    """After the job has been taken over, every step of the former holder raises LeaseLost."""
    queue(ledger, 1)
    old = claimed(ledger)
    ledger.take_back("w")
    new = claimed(ledger)
    for step in (
        lambda: ledger.heartbeat(old, 60),
        lambda: ledger.commit(old, outcome(old.job.id)),
        lambda: ledger.fail(old, "x"),
    ):
        with pytest.raises(LeaseLost):
            step()
    ledger.give_back(old)
    ledger.commit(new, outcome(new.job.id))
    assert ledger.list_jobs()[0]["state"] == "ready"
    with pytest.raises(LeaseLost):
        ledger.commit(old, outcome(old.job.id, objects=("9.9",)))


def test_a_commit_whose_answer_was_lost(ledger: SqlLedger) -> None:
    """Repeating a commit that arrived is no error, and changes nothing even if the words differ."""
    queue(ledger, 1)
    claim = claimed(ledger)
    ledger.commit(claim, outcome(claim.job.id))
    ledger.commit(claim, outcome(claim.job.id, status="refused"))
    job = ledger.ready_jobs()[0]
    assert job.outcome == outcome(claim.job.id)
    assert (
        len([event for event in ledger.explain(job.draft.study_uid)["events"] if event["what"] == "result ready"]) == 1
    )


def test_replay_gives_all_attempts_again(ledger: SqlLedger) -> None:
    """A dead job that is replayed has three failures before it again, and its former holder has no say."""
    [job] = queue(ledger, 1)
    for _ in range(3):
        old = claimed(ledger)
        ledger.fail(old, "crashed")
    ledger.replay_job(JobId(job))
    with pytest.raises(LeaseLost):
        ledger.commit(old, outcome(JobId(job)))
    for _ in range(2):
        assert ledger.fail(claimed(ledger), "crashed") is JobState.QUEUED
    with pytest.raises(IllegalTransition):
        ledger.replay_job(JobId(job))
    with pytest.raises(NotFound, match="no job"):
        ledger.replay_job(JobId("0" * 32))


def test_a_cancelled_job_is_dead_and_its_worker_hears_of_it(ledger: SqlLedger) -> None:
    """Waiting or running; its result has no say any more, it can be replayed, and what has ended cannot be cancelled."""
    waiting, running = queue(ledger, 1, 2)
    ledger.cancel_job(JobId(waiting))
    claim = claimed(ledger)
    assert claim.job.id == running
    ledger.cancel_job(JobId(running))
    with pytest.raises(LeaseLost):
        ledger.heartbeat(claim, 60)
    with pytest.raises(LeaseLost):
        ledger.commit(claim, outcome(JobId(running)))
    assert ledger.claim("w", 60) is None
    with pytest.raises(IllegalTransition):
        ledger.cancel_job(JobId(running))
    ledger.replay_job(JobId(running))
    assert claimed(ledger).job.id == running


def test_rings_become_rare(ledger: SqlLedger) -> None:
    """A queued job rings at once, then after 15, 30, 60 ... seconds, and anew when it is queued again."""
    [job] = queue(ledger, 1)
    rings = []
    for second in range(400):
        ledger.clock.time += 1  # type: ignore[attr-defined]
        if ledger.unheard(10, 15.0):
            rings.append(second)
    assert [after - before for before, after in itertools.pairwise(rings)] == [15, 30, 60, 120]
    claim = claimed(ledger)
    assert ledger.unheard(10, 15.0) == []
    ledger.fail(claim, "crashed")
    assert ledger.unheard(10, 15.0) == [(job, "hilum.any.routine")]


def _work(address: str, results: Queue[list[str]], abreast: Barrier) -> None:
    """A hundred jobs, each begun when the other process has one in hand too."""
    ledger = SqlLedger(open_engine(address), MovedClock(), lease_clock=LeaseClock())
    done = []
    for _ in range(100):
        abreast.wait(60)
        claim = claimed(ledger)
        abreast.wait(60)
        ledger.commit(claim, outcome(claim.job.id, objects=()))
        done.append(str(claim.job.id))
    ledger.close()
    results.put(done)


def test_processes_share_the_queue(tmp_path: Path) -> None:
    """Two processes that claim 200 jobs in parallel do each of them once."""
    ledger = make_ledger(tmp_path)
    queue(ledger, 1)
    first = ledger.list_jobs()[0]["id"]
    ledger.commit(claimed(ledger), outcome(first, objects=()))
    ledger.add_instance(instance(2, study="1.2.9", series="1.2.9.1"))
    record = ledger.open_studies()[0]
    ledger.release(record.uid, record.revision, "quiet")
    many = [dataclasses.replace(draft(n, study="1.2.9", series="1.2.9.1"), model=f"m{n}") for n in range(200)]  # type: ignore[arg-type]
    assert len(ledger.route(record.uid, record.revision, many, "r")) == 200
    ledger.close()
    spawn = multiprocessing.get_context("spawn")
    address, results, abreast = f"sqlite:///{tmp_path / 'ledger.db'}", spawn.Queue(), spawn.Barrier(2)
    processes = [spawn.Process(target=_work, args=(address, results, abreast)) for _ in range(2)]
    for process in processes:
        process.start()
    done = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(10)
    counted = Counter(done[0] + done[1])
    assert len(counted) == 200
    assert set(counted.values()) == {1}
