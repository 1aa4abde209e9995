"""Kill -9 anything at any time: nothing acknowledged is lost, one result set, one message.

The identifiers are those of the fault catalogue in docs/guarantees.md.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
import redis

from gateway.submit.embedded import EmbeddedBroker
from tests.acceptance.conftest import MakeSite
from tests.support.block import write_block
from tests.support.neighbours import Neighbours, assert_nothing_lost, assert_promises, study_uid_of
from tests.support.site import Site, send

pytestmark = [pytest.mark.neighbour, pytest.mark.slow]


def test_model_process_killed_mid_inference(tmp_path: Path, make_site: MakeSite, neighbours: Neighbours) -> None:
    """F03: SIGKILL to the model's process is one failed attempt; the next one gives the one result."""
    files = write_block(tmp_path / "series")
    site = make_site("slow")
    receipts = site.send(files)
    # Before it has begun on the job its death would be no attempt at it.
    site.wait_for(lambda: any(site.directory.glob("data/work/*/*/out/begun")), "the model to begin")
    site.model_process().kill()
    (job,) = site.wait_for_jobs(1)
    assert (job["state"], job["attempts_failed"]) == ("delivered", 1)
    assert_promises(site, neighbours, files, receipts)


def test_worker_killed_whole(tmp_path: Path, make_site: MakeSite, neighbours: Neighbours) -> None:
    """F04: SIGKILL to the worker takes its model along; the job is counted lost, not failed, and done once."""
    files = write_block(tmp_path / "series")
    site = make_site("slow")
    receipts = site.send(files)
    site.wait_for_jobs(1, "running")
    model = site.model_process()
    site.worker().kill()
    (job,) = site.wait_for_jobs(1)
    assert (job["state"], job["attempts_failed"], job["attempts_lost"]) == ("delivered", 0, 1)
    assert not model.is_running()
    assert_promises(site, neighbours, files, receipts)


def test_gateway_killed_mid_association(tmp_path: Path, make_site: MakeSite, neighbours: Neighbours) -> None:
    """F01: what was acknowledged before the kill is there; sent again after it, the study is done once."""
    files = write_block(tmp_path / "series")
    site = make_site()
    receipts: dict[str, object] = {}
    study = study_uid_of(files)

    def seen() -> bool:
        return any(row["uid"] == study and row["instances"] >= 5 for row in site.ledger.list_studies())

    sender = threading.Thread(target=lambda: receipts.update(send(files, site.port)))
    sender.start()
    site.wait_for(seen, "some instances")
    site.kill_gateway()
    sender.join()
    site.start()
    assert_nothing_lost(site, files, receipts)  # type: ignore[arg-type]
    again = site.send(files)
    site.wait_for_jobs(1, "delivered")
    # What came before the kill may be a part too small for the model.
    ended = ("delivered", "superseded", "retracted", "quarantined")
    site.wait_for(lambda: all(job["state"] in ended for job in site.jobs()), "all jobs to end")
    newest = site.jobs()[0]
    assert newest["outcome"]["source_instances"] == len(files)
    assert_promises(site, neighbours, files, again)


def test_gateway_killed_between_last_store_and_release(
    tmp_path: Path, make_site: MakeSite, neighbours: Neighbours
) -> None:
    """F02: a study whose quiet time ran when the gateway died is released and done after the restart."""
    files = write_block(tmp_path / "series")
    site = make_site()
    receipts = site.send(files)
    site.kill_gateway()
    site.start()
    (job,) = site.wait_for_jobs(1)
    assert job["state"] == "delivered"
    assert_promises(site, neighbours, files, receipts)


def test_broker_killed_and_flushed_with_jobs_queued(
    tmp_path: Path, make_site: MakeSite, neighbours: Neighbours
) -> None:
    """F06, F08: the broker dies and then forgets everything while jobs are queued; each is done once."""
    site = make_site("slow")
    sent = [write_block(tmp_path / f"series{number}", seed=str(number)) for number in range(4)]
    receipts = {}
    for files in sent:
        receipts.update(site.send(files))
    site.wait_for_jobs(1, "running")
    site.kill_broker()
    site.wait_for(lambda: _flushed(site), "the broker to be back")
    jobs = site.wait_for_jobs(4, "delivered")
    assert len(jobs) == 4
    assert_promises(site, neighbours, [file for files in sent for file in files], receipts)


def _flushed(site: Site) -> bool:
    try:
        socket = EmbeddedBroker(site.directory / "data").url.removeprefix("redis+socket://").split("?")[0]
        return bool(redis.Redis(unix_socket_path=socket).flushall())
    except redis.RedisError:
        return False


def test_orthanc_down_while_results_are_ready(tmp_path: Path, make_site: MakeSite, neighbours: Neighbours) -> None:
    """F17: the PACS is away; objects wait, the message that speaks of them waits too, and all arrives once."""
    files = write_block(tmp_path / "series")
    site = make_site()
    neighbours.orthanc.stop()
    receipts = site.send(files)
    site.wait_for(lambda: any(row["attempts"] >= 2 for row in site.ledger.list_deliveries()), "two tries", 60)
    assert {row["state"] for row in site.ledger.list_deliveries() if row["destination"] == "ehr"} == {"held"}
    assert neighbours.ehr.control_ids == frozenset()
    neighbours.orthanc.start()
    (job,) = site.wait_for_jobs(1, patience=120)
    assert job["state"] == "delivered"
    assert_promises(site, neighbours, files, receipts)


def test_model_that_always_crashes_ends_dead(tmp_path: Path, make_site: MakeSite, neighbours: Neighbours) -> None:
    """F12: three attempts, then dead with the signal's name; nothing leaves; a replay starts it again."""
    files = write_block(tmp_path / "series")
    site = make_site("segfault")
    receipts = site.send(files)
    (job,) = site.wait_for_jobs(1)
    assert (job["state"], job["attempts_failed"]) == ("dead", 3)
    assert "SIGSEGV" in job["reason"]
    assert neighbours.ehr.control_ids == frozenset()
    assert job["id"] in site.hilum("dead-letters").stdout
    assert_promises(site, neighbours, files, receipts)
    assert site.hilum("replay", "job", job["id"]).returncode == 0
    site.wait_for_jobs(1, "running")


def test_stop_gives_the_job_back(tmp_path: Path, make_site: MakeSite, neighbours: Neighbours) -> None:
    """F47: SIGTERM with a job running ends with status 0 and counts no attempt; the next start does it."""
    files = write_block(tmp_path / "series")
    site = make_site("slow")
    receipts = site.send(files)
    site.wait_for_jobs(1, "running")
    assert site.stop() == 0
    (job,) = site.jobs()
    assert (job["state"], job["attempts_failed"]) == ("queued", 0)
    site.start()
    (job,) = site.wait_for_jobs(1)
    assert job["state"] == "delivered"
    assert_promises(site, neighbours, files, receipts)


def test_frozen_worker_comes_back_too_late(tmp_path: Path, make_site: MakeSite, neighbours: Neighbours) -> None:
    """F11: a worker that was stopped for longer than its lease finds its job done by another, and commits nothing."""
    files = write_block(tmp_path / "series")
    site = make_site("slow")
    receipts = site.send(files)
    site.wait_for_jobs(1, "running")
    frozen = site.worker()
    model = site.model_process()
    os.kill(frozen.pid, signal.SIGSTOP)
    os.kill(model.pid, signal.SIGSTOP)
    try:
        site.wait_for(lambda: site.jobs()[0]["attempts_lost"] == 1, "the lease to run out")
    finally:
        os.kill(model.pid, signal.SIGCONT)
        os.kill(frozen.pid, signal.SIGCONT)
    (job,) = site.wait_for_jobs(1)
    assert job["state"] == "delivered"
    assert_promises(site, neighbours, files, receipts)
