"""`/readyz` of a gateway that runs: what it says while parts of it are away, and when they are back."""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import httpx2
import psutil
from pydicom.uid import MRImageStorage
from pynetdicom import AE, build_context

from tests.support.site import Site

ALL = {"receiving", "ledger", "spool", "broker", "workers"}


def _ask(site: Site) -> tuple[int, str, dict[str, str]]:
    """Status code, verdict, and what is the matter with each part that is not well."""
    answer = httpx2.get(f"http://127.0.0.1:{site.status['http_port']}/readyz", timeout=30)
    said: dict[str, Any] = answer.json()
    assert set(said["parts"]) == ALL
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.status_code, said["status"], {n: p["detail"] for n, p in said["parts"].items() if p["status"] != "ok"}


def test_parts_that_go_and_come_back(tmp_path: Path) -> None:
    """A broker or worker that is away is told of, and delays results only; without gateway or ledger nothing comes in: 503."""
    models = {"brain-mask": {"bundle": "builtin:brain_mask"}}
    with Site(tmp_path, {"broker": {"url": "redis://127.0.0.1:1/0"}, "models": models}, role="gateway") as site:
        code, verdict, amiss = _ask(site)
        assert (code, verdict, set(amiss)) == (200, "degraded", {"broker", "workers"})
        gateway, lock = psutil.Process(site.status["pid"]), tmp_path / "data" / "gateway.lock"
        gateway.suspend()
        os.utime(lock, (1e9, 1e9))  # as after a while in which it has given no sign of life
        site.wait_for(lambda: _ask(site)[:2] == (503, "not ready"), "the gateway to be missed")
        assert _ask(site)[2]["receiving"] == "no gateway takes connections"
        gateway.resume()
        site.wait_for(lambda: _ask(site)[0] == 200, "the gateway to be back")
        other = sqlite3.connect(tmp_path / "data" / "ledger.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        site.wait_for(lambda: _ask(site)[0] == 503, "the locked ledger to be told of")
        other.execute("ROLLBACK")
        other.close()
        site.wait_for(lambda: _ask(site)[0] == 200, "the ledger to be free")


def test_at_the_watermark(tmp_path: Path) -> None:
    """Where the disk is too full for new studies nobody should be sent here, and the probe tells no path: F24."""
    with Site(tmp_path, {"dicom": {"refuse_new_below": 1.0}}, role="gateway") as site:
        code, verdict, amiss = _ask(site)
        assert (code, verdict, set(amiss)) == (503, "not ready", {"spool"})
        assert "no new studies are taken (dicom.refuse_new_below)" in amiss["spool"]
        assert str(tmp_path) not in amiss["spool"]


def test_a_status_file_that_cannot_be_written(tmp_path: Path) -> None:
    """A disk that is full when a process dies must not end the gateway: what it supervises is started again all the same."""
    with Site(tmp_path, {}, role="gateway") as site:
        first, gateway = site.status["web_pid"], psutil.Process(site.status["pid"])
        (tmp_path / "data" / "serve.tmp").mkdir()  # nothing can be written there any more
        os.kill(first, signal.SIGKILL)
        site.wait_for(lambda: "step failed" in site.log, "the status file to fail")
        (tmp_path / "data" / "serve.tmp").rmdir()
        psutil.Process(site.status["broker_pid"]).kill()
        site.wait_for(lambda: site.status["web_pid"] != first, "the next status file")
        assert gateway.is_running()
        association = AE("TESTER").associate(
            "127.0.0.1", site.port, contexts=[build_context(MRImageStorage)], ae_title="HILUM"
        )
        assert association.is_established
        association.release()
