"""The doorbell on Celery and Redis. It carries a job id, and losing it costs seconds (ADR 0002)."""

from __future__ import annotations

import threading
from contextlib import suppress
from queue import Full, Queue
from typing import Any

import redis
from celery import Celery

from gateway.domain.bell import celery_settings
from gateway.domain.ids import JobId
from gateway.domain.messages import RUN_TASK
from gateway.observe.logs import log

_WAITING_RINGS = 1000
_PATIENCE = 5.0  # seconds for the broker to say how it is


class CeleryBroker:
    """Implements `gateway.domain.ports.Broker`: rings from a thread of its own, so that nothing ever waits for Redis."""

    def __init__(self, url: str) -> None:
        self._app = Celery("hilum", broker=url, set_as_current=False)
        self._app.conf.update(celery_settings())
        self._queue: Queue[tuple[JobId, str] | None] = Queue(_WAITING_RINGS)
        self._thread = threading.Thread(target=self._ring_all, name="bell", daemon=True)
        self._stopped = threading.Event()
        self._log = log(stage="submit")
        self.failed_rings = 0
        self._thread.start()

    def ring(self, job_id: JobId, queue: str) -> None:
        """Wakes a worker that listens to this queue; never blocks and never raises. A ring that gets lost is made good
        by the reconciler."""
        try:
            self._queue.put_nowait((job_id, queue))
        except Full:
            self.failed_rings += 1

    def close(self) -> None:
        """Stops ringing; what has not rung yet is made good by the reconciler. Waits for a dead broker two seconds."""
        self._stopped.set()
        with suppress(Full):
            self._queue.put_nowait(None)
        self._thread.join(timeout=2)
        if not self._thread.is_alive():
            self._app.close()

    def _ring_all(self) -> None:
        while (ring := self._queue.get()) is not None and not self._stopped.is_set():
            job_id, queue = ring
            try:
                self._app.send_task(RUN_TASK, args=[job_id], queue=queue, retry=False)
            # Redis and kombu have many errors, and none of them matters here.
            except Exception as error:  # noqa: BLE001
                self.failed_rings += 1
                self._log.warning("ring lost", job_id=job_id, error=type(error).__name__)


def broker_state(url: str) -> dict[str, Any]:
    """Proves that the broker answers, and says what it is; raises whatever redis-py raises."""
    address = url.replace("redis+socket://", "unix://").replace("?virtual_host=", "?db=")
    client = redis.Redis.from_url(address, socket_timeout=_PATIENCE, socket_connect_timeout=_PATIENCE)
    try:
        info = client.info()
    finally:
        client.close()
    version = info.get("valkey_version") or info.get("redis_version")
    return {"version": version, "policy": info.get("maxmemory_policy"), "appendonly": bool(info.get("aof_enabled"))}
