"""A gateway, workers, dispatchers and people do anything in any order to one ledger; a model says what must hold."""

from __future__ import annotations

import dataclasses
import random
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy import select

from gateway.domain.errors import LeaseLost, NotFound
from gateway.domain.ids import AssociationId, JobId, Sha256, StudyUID
from gateway.domain.job import Claim, Delivery
from gateway.domain.ports import StudyRecord
from gateway.domain.states import (
    DELIVERY_TRANSITIONS,
    JOB_TRANSITIONS,
    STUDY_TRANSITIONS,
    DeliveryState,
    IllegalTransition,
    JobState,
    StudyState,
)
from gateway.domain.study import Series
from gateway.store import schema
from gateway.store.engine import reading
from gateway.store.ledger import SqlLedger
from gateway.submit.jobkey import job_key
from tests.support.ledgers import (
    EHR,
    LATER,
    MISSING,
    NO,
    OTHER_FORM,
    PACS,
    YES,
    deliveries,
    draft,
    make_ledger,
    notice,
    outcome,
)
from tests.support.received import instance

STUDIES = ("1.2.1", "1.2.2")
# Weighted so that a run of fifty steps goes from an image to an answer, with accidents on the way.
STEPS = [
    *["bring"] * 5, "connect", "disconnect", *["store"] * 3, *["release"] * 3, *["route"] * 4, *["plan"] * 4, "hold_back",
    *["replay_study"] * 2, "replay_job", *["claim"] * 8, "heartbeat", *["commit"] * 5, *["fail"] * 6, *["give_back"] * 3,
    *["take_back"] * 3, *["send"] * 6, *["settle"] * 10, *["prove"] * 5, *["replay_delivery"] * 2, "retract", "restart",
]  # fmt: skip
WORKERS = ("w1", "w2", "w3")
OVER = {"delivered", "substituted", "withdrawn", "dead"}
MAX_FAILED, MAX_LOST = 3, 4
NONE = [0, 0, False]  # attempts failed, attempts lost, given up for good

pick = st.sampled_from([-1, -1, -1, -2, -3, 0, 1])  # of whatever there is, modulo: mostly the newest


def closure(table: dict[tuple[Any, Any], Any], kind: Any) -> set[tuple[str, str]]:
    """State pairs that one call may bridge: it may cause at most two events in a row."""
    one = {(state.value, after.value) for (state, _), after in table.items()}
    two = {(a, d) for a, b in one for c, d in one if b == c}
    return one | two | {(state.value, state.value) for state in kind}


MOVES = {
    "studies": closure(STUDY_TRANSITIONS, StudyState),
    "jobs": closure(JOB_TRANSITIONS, JobState),
    "deliveries": closure(DELIVERY_TRANSITIONS, DeliveryState),
}


class Snapshot:
    """All rows of a ledger at one moment."""

    def __init__(self, ledger: SqlLedger) -> None:
        with reading(ledger.engine) as connection:
            found = connection.execute(select(schema.instances.c.sop_instance_uid, schema.instances.c.sha256))
            self.instances = {row.sop_instance_uid: row.sha256 for row in found}
            found = connection.execute(select(schema.conflicts.c.sop_instance_uid, schema.conflicts.c.sha256))
            self.conflicts = {tuple(row) for row in found}
            self.studies = {row.uid: row._mapping for row in connection.execute(select(schema.studies))}
            self.jobs = {
                row.id: row._mapping
                for row in connection.execute(select(schema.jobs).order_by(schema.jobs.c.created_at))
            }
            self.deliveries = {row.id: row._mapping for row in connection.execute(select(schema.deliveries))}


class Ledger(RuleBasedStateMachine):
    """What the processes around a ledger do to it, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.ledger = make_ledger(Path(self.directory.name))
        self.ledger.max_lost = MAX_LOST
        self.contents: dict[str, Sha256] = {}  # SOP Instance UID -> first content acknowledged
        self.conflicts: set[tuple[str, str]] = set()
        self.open: list[str] = []  # associations
        self.names = 0
        self.claims: list[Claim] = []  # every claim ever made
        self.holder: dict[str, Claim] = {}  # job -> who may commit
        self.counts: dict[str, list[Any]] = {}  # job -> as in NONE
        self.sends: list[Delivery] = []  # every claimed delivery
        self._open_association()
        self.before = Snapshot(self.ledger)

    def teardown(self) -> None:
        self.ledger.close()
        self.directory.cleanup()

    # --- senders -------------------------------------------------------------------------------------------------

    def _open_association(self) -> None:
        self.names += 1
        self.open.append(f"a{self.names}")
        self.ledger.open_association(AssociationId(self.open[-1]), "CT1", "127.0.0.1")

    def connect(self, which: int, choice: int) -> None:
        self._open_association()

    def disconnect(self, which: int, choice: int) -> None:
        how = ("released", "aborted", "lost")[choice % 3]
        self.ledger.close_association(AssociationId(self.open.pop(which % len(self.open))), how)
        if not self.open:
            self._open_association()

    def store(self, which: int, choice: int) -> None:
        self._store(which, STUDIES[choice % 2], 1 + choice // 2, "other" if which == 1 else "")

    def _store(self, which: int, study: str, number: int, content: str) -> None:
        made = instance(
            number, content=content, study=study, series=f"{study}.1", association=self.open[which % len(self.open)],
            at=self.ledger.clock.now(),
        )  # fmt: skip
        uid = made.header.sop_instance_uid
        expected = (
            "new" if uid not in self.contents else "duplicate" if self.contents[uid] == made.sha256 else "conflict"
        )
        assert self.ledger.add_instance(made) == expected
        self.contents.setdefault(uid, made.sha256)
        if expected == "conflict":
            self.conflicts.add((uid, made.sha256))

    # --- the pipeline --------------------------------------------------------------------------------------------

    def bring(self, which: int, choice: int) -> None:
        """The ordinary way, in one step."""
        self.store(which, choice)
        self.release(which, choice)
        for record in self.ledger.complete_studies():
            self._route(record, "run")

    def release(self, which: int, choice: int) -> None:
        for record in self.ledger.open_studies():
            if record.uid == STUDIES[choice % 2]:
                assert not self.ledger.release(record.uid, record.revision - 1, "an instance came since")
                assert self.ledger.release(record.uid, record.revision, "quiet")
                assert not self.ledger.release(record.uid, record.revision, "again")

    def route(self, which: int, choice: int) -> None:
        for record in self.ledger.complete_studies():
            self._route(record, ("run", "nothing", "quarantine", "stale")[choice % 4])

    def _route(self, record: StudyRecord, verdict: str) -> None:
        if verdict == "quarantine":
            self.ledger.quarantine_study(record.uid, record.revision, "held")
            return
        series = self.ledger.study(record.uid).series[0]
        made = dataclasses.replace(
            draft(study=record.uid, series=series.uid), id=self._key(series), input_set=series.input_set()
        )
        known = set(Snapshot(self.ledger).jobs)
        revision = record.revision - (verdict == "stale")
        new = self.ledger.route(record.uid, revision, [] if verdict == "nothing" else [made], "why")
        assert list(new) == ([] if verdict != "run" or made.id in known else [made.id])
        if new:
            got = {item.header.sop_instance_uid for item in self.ledger.input_instances(made.id)}
            assert got == {item.header.sop_instance_uid for item in series.instances}

    def _key(self, series: Series) -> JobId:
        return job_key(series.first.study_uid, series.uid, series.input_set(), "d")

    def plan(self, which: int, choice: int) -> None:
        for job in self.ledger.ready_jobs():
            drafts = deliveries(job.id, (f"1.9.{int(job.id[:4], 16)}.1", f"1.9.{int(job.id[:4], 16)}.2"))
            other = dataclasses.replace(drafts[0], key=f"{drafts[0].key}.9")
            drafts[0] = dataclasses.replace(drafts[0], fallbacks=(other,))
            self.ledger.plan(job.id, drafts)
            self.ledger.plan(job.id, drafts)  # interrupted and done again

    def hold_back(self, which: int, choice: int) -> None:
        for job in self.ledger.ready_jobs()[:1]:
            self.ledger.hold_back(job.id, "no message")

    def replay_study(self, which: int, choice: int) -> None:
        with suppress(IllegalTransition, NotFound):
            self.ledger.replay_study(StudyUID(STUDIES[choice % 2]))

    def replay_job(self, which: int, choice: int) -> None:
        jobs = list(self.before.jobs)
        if jobs:
            job = jobs[which % len(jobs)]
            with suppress(IllegalTransition):
                self.ledger.replay_job(JobId(job))
                self.counts[job] = list(NONE)

    # --- workers -------------------------------------------------------------------------------------------------

    def claim(self, which: int, choice: int) -> None:
        queued = {key for key, row in self.before.jobs.items() if row["state"] == "queued"}
        claim = self.ledger.claim(WORKERS[choice % 3], 60)
        assert (claim is not None) == bool(queued)
        if claim:
            assert claim.job.id in queued
            assert all(claim.fence > old.fence for old in self.claims if old.job.id == claim.job.id)
            self.claims.append(claim)
            self.holder[claim.job.id] = claim

    def _attempt(self, which: int) -> tuple[Claim, bool]:
        claim = self.claims[which % len(self.claims)]
        return claim, self.holder.get(claim.job.id) == claim

    def heartbeat(self, which: int, choice: int) -> None:
        claim, holds = self._attempt(which)
        assert self._works(lambda: self.ledger.heartbeat(claim, 60)) == holds

    def commit(self, which: int, choice: int) -> None:
        status = "refused" if choice % 5 == 0 else "complete"
        claim, holds = self._attempt(which)
        own = f"1.9.{int(claim.job.id[:4], 16)}"
        result = outcome(claim.job.id, status=status, objects=(f"{own}.1", f"{own}.2") if status == "complete" else ())
        before = self._job(claim.job.id)
        worked = self._works(lambda: self.ledger.commit(claim, result))
        if holds:
            assert worked
            assert self._works(lambda: self.ledger.commit(claim, result))  # its answer was lost, and it is sent again
            del self.holder[claim.job.id]
        else:
            assert self._job(claim.job.id) == before  # refused, or known to be done already; in no case done anew

    def fail(self, which: int, choice: int) -> None:
        permanent = choice % 8 == 0
        claim, holds = self._attempt(which)
        assert self._works(lambda: self.ledger.fail(claim, "crashed", permanent=permanent)) == holds
        if holds:
            del self.holder[claim.job.id]
            count = self.counts.setdefault(claim.job.id, list(NONE))
            count[0] += 1
            count[2] = permanent

    def give_back(self, which: int, choice: int) -> None:
        claim, holds = self._attempt(which)
        before = self._job(claim.job.id)
        self.ledger.give_back(claim)
        if holds:
            del self.holder[claim.job.id]
            assert self._job(claim.job.id)["state"] == "queued"
        else:
            assert self._job(claim.job.id) == before

    def take_back(self, which: int, choice: int) -> None:
        owner = (None, *WORKERS)[choice % 4]
        jump = (0, 30, 61)[choice // 4 % 3]
        if owner is None and choice == 12:
            self.ledger.lease_clock.epoch += "+"
        elif owner is None:
            self.ledger.lease_clock.time += jump  # type: ignore[attr-defined]
        for job in self.ledger.take_back(owner):
            del self.holder[job]
            self.counts.setdefault(job, list(NONE))[1] += 1
        if owner is None and (choice == 12 or jump > 60):
            assert not self.holder

    def _works(self, call: Any) -> bool:
        try:
            call()
        except LeaseLost:
            return False
        return True

    def _job(self, job: str) -> dict[str, Any]:
        return Snapshot(self.ledger).jobs[job]

    # --- dispatchers ---------------------------------------------------------------------------------------------

    def send(self, which: int, choice: int) -> None:
        self.ledger.clock.time += 10  # type: ignore[attr-defined]
        found = self.ledger.claim_deliveries((PACS, EHR)[choice % 2], 60, 1 + choice % 5)
        assert len({one.id for one in found}) == len(found) <= 1 + choice % 5
        self.sends.extend(found)

    def settle(self, which: int, choice: int) -> None:
        if not self.sends:
            return
        one, receipt = self.sends[which % len(self.sends)], (YES, YES, YES, LATER, NO, OTHER_FORM)[choice % 6]
        newest = max(other.fence for other in self.sends if other.id == one.id)
        before = self._delivery(one.id)
        now = self.ledger.clock.now()
        self.ledger.settle(one, receipt, now + 5 if receipt is LATER else None, proof_due=now if choice > 7 else None)
        if one.fence < newest or before["state"] != "sending":
            assert self._delivery(one.id) == before
        else:
            assert self._delivery(one.id)["state"] in OVER | {"waiting", "stored"}

    def prove(self, which: int, choice: int) -> None:
        now = self.ledger.clock.now()
        finding = (YES, MISSING, LATER, NO)[choice // 2 % 4]
        for one in self.ledger.claim_proofs((PACS, EHR)[choice % 2], 0, 3):
            self.sends.append(one)  # its fence: an answer to the transfer that comes now is too late
            self.ledger.settle_proof(one, finding, now + 5 if finding in (MISSING, LATER) else None)

    def retract(self, which: int, choice: int) -> None:
        jobs = list(self.before.jobs)
        if jobs:
            job = jobs[which % len(jobs)]
            already = self.before.jobs[job]["state"] in ("retracting", "retracted", "superseded")
            assert self.ledger.retract(JobId(job), [notice(JobId(job))], "recalled") != already
            assert not self.ledger.retract(JobId(job), [notice(JobId(job))], "recalled")
            self.holder.pop(job, None)

    def replay_delivery(self, which: int, choice: int) -> None:
        rows = list(self.before.deliveries)
        if rows:
            with suppress(IllegalTransition):
                self.ledger.replay_delivery(rows[which % len(rows)])

    def _delivery(self, number: int) -> dict[str, Any]:
        return Snapshot(self.ledger).deliveries[number]

    # --- the machine ---------------------------------------------------------------------------------------------

    def restart(self, which: int, choice: int) -> None:
        old = self.ledger
        old.close()
        self.ledger = SqlLedger(old.engine, old.clock, lease_clock=old.lease_clock, max_lost=MAX_LOST)
        self.ledger.recover()
        self.open.clear()
        self._open_association()

    @rule(step=st.sampled_from(STEPS), which=pick, choice=st.integers(0, 15))
    def happens(self, step: str, which: int, choice: int) -> None:
        # One rule, weighted: with a rule for each step, chance rarely comes as far as a delivery.
        if self.claims or step not in ("heartbeat", "commit", "fail", "give_back"):
            getattr(self, step)(which, choice)

    # --- what must hold ------------------------------------------------------------------------------------------

    @invariant()
    def everything_holds(self) -> None:
        now = Snapshot(self.ledger)
        self._nothing_acknowledged_is_missing(now)
        assert {key for key, row in now.jobs.items() if row["state"] == "running"} == set(self.holder), (
            "one holder each"
        )
        self._attempts_are_counted_and_capped(now)
        self._delivered_means_all_of_it(now)
        self._moves_are_in_the_tables(now)
        self.before = now

    def _nothing_acknowledged_is_missing(self, now: Snapshot) -> None:
        assert now.instances == self.contents
        assert sum(row["instances"] for row in now.studies.values()) == len(self.contents)
        assert now.conflicts == self.conflicts

    def _attempts_are_counted_and_capped(self, now: Snapshot) -> None:
        for key, row in now.jobs.items():
            failed, lost, permanent = self.counts.get(key, NONE)
            assert (row["attempts_failed"], row["attempts_lost"]) == (failed, lost)
            if row["state"] == "dead":
                assert failed == MAX_FAILED or lost == MAX_LOST or permanent
                assert row["reason"]
            elif row["state"] in ("queued", "running"):
                assert failed < MAX_FAILED
                assert lost < MAX_LOST
                assert not permanent

    def _delivered_means_all_of_it(self, now: Snapshot) -> None:
        for key, job in now.jobs.items():
            states = {row["state"] for row in now.deliveries.values() if row["job_id"] == key}
            if job["state"] == "delivered":
                assert states <= {"delivered", "substituted"}
                assert "delivered" in states
            elif job["state"] == "retracting":
                assert states - OVER or "dead" in states, "told, and not known to be"
            elif job["state"] == "retracted":
                assert states <= OVER - {"dead"}
            elif job["state"] == "undelivered":
                assert "dead" in states
                assert states <= OVER
            elif job["state"] == "delivering":
                assert states - OVER, "over, and nobody was told"
            else:
                assert not states

    def _moves_are_in_the_tables(self, now: Snapshot) -> None:
        for kind, moves in MOVES.items():
            for key, row in getattr(self.before, kind).items():
                after = getattr(now, kind)[key]["state"]
                assert (row["state"], after) in moves, f"{kind}: {row['state']} -> {after}"
        for key, row in self.before.deliveries.items():
            if row["state"] == "held" and now.deliveries[key]["state"] not in ("held", "withdrawn"):
                same = [
                    other
                    for other in now.deliveries.values()
                    if other["job_id"] == row["job_id"] and other["role"] == "seg"
                ]
                assert {other["state"] for other in same} <= OVER, "a message left before its objects"


TestLedger = Ledger.TestCase
TestLedger.settings = settings(
    max_examples=25, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def test_long_lives() -> None:
    """Long walks with fixed dice: they go where short ones do not, and together through every state there is."""
    visited: set[tuple[str, str]] = set()
    for seed in range(6):
        dice, machine = random.Random(seed), Ledger()
        for _ in range(250):
            machine.happens(dice.choice(STEPS), dice.choice([-1, -1, -1, -2, -3, 0, 1]), dice.randrange(16))
            machine.everything_holds()
            visited |= {(kind, row["state"]) for kind in MOVES for row in getattr(machine.before, kind).values()}
        machine.teardown()
    for kind, states in (("studies", StudyState), ("jobs", JobState), ("deliveries", DeliveryState)):
        assert {state for where, state in visited if where == kind} == {state.value for state in states}
