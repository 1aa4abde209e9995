"""The worker's process: the only place that knows Celery, and where a worker meets its ledger and spool.

Celery is the doorbell (ADR 0002): a task says that there is something to do, and the worker asks the ledger what. Its
pool is one thread, because the model runs in a process of its own that is watched, limited and killed from here (ADR
0003); a pool of processes would add a second parent that can die.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import socket
import sys
import threading
import time
import uuid
from datetime import datetime
from pathlib import Path

from celery import Celery
from celery.signals import worker_shutting_down

from gateway.bundle.files import resolve_bundle
from gateway.domain.bell import celery_settings, queues_of
from gateway.domain.errors import HilumError
from gateway.domain.messages import RUN_TASK
from gateway.observe.logs import configure, log
from gateway.settings import Settings, read_settings
from gateway.store.ledger import open_ledger
from gateway.store.spool import LocalSpool
from workers.worker import Worker


class _Clock:
    def now(self) -> float:
        return time.time()


def make_worker(settings: Settings, owner: str) -> Worker:
    """A worker with its ledger and spool; raises HilumError."""
    jobs = settings.jobs
    return Worker(
        owner=owner,
        ledger=open_ledger(settings.ledger_url, _Clock(), max_failed=jobs.max_failed, max_lost=jobs.max_lost),
        spool=LocalSpool(settings.data_dir / "spool"),
        bundles={name: resolve_bundle(entry.bundle, Path.cwd()) for name, entry in settings.models.items()},
        scratch=settings.data_dir / "work",
        lease=jobs.lease,
        heartbeat=jobs.heartbeat,
        forms=settings.forms,
        devices=settings.jobs.devices or found_devices(),
        memory_mib=settings.jobs.memory_mib,
        least=lambda: settings.jobs.least_priority(datetime.now().time()),
    )


def found_devices() -> tuple[str, ...]:
    """What models may run on here, as far as can be told without loading PyTorch."""
    if Path("/dev/nvidiactl").exists():
        return ("cuda", "cpu")
    return ("mps", "cpu") if sys.platform == "darwin" and platform.machine() == "arm64" else ("cpu",)


def make_app(worker: Worker, broker_url: str) -> Celery:
    """The Celery application with its one task."""
    app = Celery("hilum", broker=broker_url)
    app.conf.update(celery_settings())

    @app.task(name=RUN_TASK)  # type: ignore[untyped-decorator]
    def run(job_id: str) -> None:
        # The id is for the trace only: the best job is done, whichever rang.
        _guarded(worker.answer)

    return app


def knock_for_ever(worker: Worker, every: float) -> None:
    """Looks into the ledger when nobody rings: a broker that is away costs seconds, not progress."""
    _guarded(worker.prepare)
    while True:
        _guarded(worker.attend)
        _guarded(worker.knock)
        time.sleep(every * random.uniform(0.8, 1.2))  # noqa: S311


def _guarded(work: object) -> None:
    try:
        work()  # type: ignore[operator]
    # The process must go on: what failed is in the ledger or comes back when its lease runs out.
    except Exception as error:  # noqa: BLE001
        text = error.message if isinstance(error, HilumError) else ""
        log(stage="worker").error("worker trouble", error=type(error).__name__, reason=text)


def main(arguments: list[str] | None = None) -> int:
    """Runs a worker until it is told to stop."""
    parser = argparse.ArgumentParser(prog="hilum worker")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--broker", help="broker URL, where the configuration says `embedded`")
    parser.add_argument("--name", default=f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}")
    parser.add_argument("--devices", action="store_true", help="print what models may run on here, as JSON, and end")
    options = parser.parse_args(arguments)
    if options.devices:
        print(json.dumps(found_devices()))
        return 0
    configure()
    try:
        settings = read_settings(options.config)
        worker = make_worker(settings, options.name)
    except HilumError as error:
        print(error.message, file=sys.stderr)
        return error.exit_status
    worker_shutting_down.connect(lambda **_: worker.stop(), weak=False)
    knocking = threading.Thread(target=knock_for_ever, args=(worker, settings.jobs.knock), name="knock", daemon=True)
    knocking.start()
    app = make_app(worker, options.broker or settings.broker.url)
    queues = queues_of(settings.jobs.devices or found_devices())
    flags = [
        "-Q",
        ",".join(queues),
        "--pool=threads",
        "--concurrency=1",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
    ]
    app.worker_main(["--quiet", "worker", *flags, "--loglevel=ERROR", "-n", f"hilum-{uuid.uuid4().hex[:8]}@%h"])
    worker.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
