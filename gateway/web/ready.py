"""`/readyz`: whether studies are taken in and worked on, for load balancers and monitoring."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from gateway.observe.logs import log

_FRESH = 1.0  # seconds for which an answer holds: whoever asks more often costs nothing


@dataclass(frozen=True, kw_only=True)
class Part:
    """One thing that has to be well."""

    name: str
    look: Callable[[], str]  # what is the matter, in a sentence without patient data; empty where all is well
    vital: bool = True  # without it nothing is taken in


class Readiness:
    """Answers from what the parts say."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._lock = threading.Lock()
        self._found: Mapping[str, str] = {}
        self._until = 0.0

    async def answer(self, _request: Request) -> Response:
        """200 where studies are taken in, with `degraded` where something else is amiss; else 503."""
        found = await run_in_threadpool(self._look)
        vital = {part.name for part in self._parts if part.vital}
        stopped = any(problem and name in vital for name, problem in found.items())
        said = {
            "status": "not ready" if stopped else "degraded" if any(found.values()) else "ready",
            "parts": {name: _told(problem) for name, problem in found.items()},
        }
        status = HTTPStatus.SERVICE_UNAVAILABLE if stopped else HTTPStatus.OK
        return Response(json.dumps(said), status, {"Cache-Control": "no-store"}, media_type="application/json")

    def _look(self) -> Mapping[str, str]:
        with self._lock:
            if time.monotonic() >= self._until:
                self._found = {part.name: _look(part) for part in self._parts}
                self._until = time.monotonic() + _FRESH
            return self._found


def _look(part: Part) -> str:
    try:
        return part.look()
    # Whatever is wrong with a part, it is not well, and the others are still to be told of.
    except Exception as error:  # noqa: BLE001
        log(stage="web").error("part cannot be looked at", part=part.name, error=type(error).__name__)
        return "it cannot be told how it is"


def _told(problem: str) -> dict[str, str]:
    return {"status": "failing", "detail": problem} if problem else {"status": "ok"}
