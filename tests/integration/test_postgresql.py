"""The ledger on a real PostgreSQL: the same tests that SQLite passes, and the clock that many machines share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.store.engine import DatabaseClock, lease_clock
from tests.support.ledgers import POSTGRES, draft, make_ledger
from tests.support.postgres import running_postgres
from tests.support.received import STUDY, instance

pytestmark = pytest.mark.neighbour
ROOT = Path(__file__).parents[2]
SAME = [
    "tests/unit/gateway/store/test_intake.py",
    "tests/unit/gateway/store/test_jobs.py",
    "tests/unit/gateway/store/test_crew.py",
    "tests/unit/gateway/store/test_outbox.py",
    "tests/unit/gateway/store/test_evidence_rows.py",
]
ON_FILES = "tests/unit/gateway/store/test_jobs.py::test_processes_share_the_queue"  # opens SQLite by its path


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_postgres() as address:
        yield address


def test_the_same_tests(server: str) -> None:
    """What is true of the ledger is true on both databases."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--deselect", ON_FILES, *SAME]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {POSTGRES: server}, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_leases_are_measured_by_the_database(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two machines that have booted at different times agree on when a lease is over."""
    monkeypatch.setenv(POSTGRES, server)
    ledger = make_ledger(tmp_path)
    clock = lease_clock(ledger.engine)
    assert isinstance(clock, DatabaseClock)
    before = clock.now()
    assert clock.now() > before
    ledger.close()


def test_a_job_is_claimed_once(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many workers ask at the same moment."""
    monkeypatch.setenv(POSTGRES, server)
    ledger = make_ledger(tmp_path)
    ledger.add_instance(instance(1))
    ledger.release(STUDY, 1, "quiet")
    ledger.route(STUDY, 1, [draft(number) for number in (1, 2, 3)], "r")
    with ThreadPoolExecutor(8) as workers:
        claims = list(workers.map(lambda number: ledger.claim(f"w{number}", 60), range(24)))
    claimed = [claim.job.id for claim in claims if claim]
    running = [row["id"] for row in ledger.list_jobs() if row["state"] == "running"]
    assert sorted(claimed) == sorted(running)
    assert len(set(claimed)) == len(claimed) > 0
    ledger.close()
