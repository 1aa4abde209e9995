"""A round of the pipeline in the gateway: what one step does to the others when it fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from gateway.commands.serve import _Rounds
from gateway.domain.errors import LedgerUnavailable


class _Steps:
    """A pipeline of three steps, of which the second raises."""

    next_look = 0.0

    def __init__(self, error: Exception) -> None:
        self.error, self.done = error, list[str]()

    @property
    def steps(self) -> tuple[Callable[[], None], ...]:
        return (self.first, self.second, self.third)

    def first(self) -> None:
        self.done.append("first")

    def second(self) -> None:
        raise self.error

    def third(self) -> None:
        self.done.append("third")


def _rounds(pipeline: Any) -> _Rounds:
    return _Rounds(threading.Event(), threading.Event(), pipeline)


def test_a_step_that_fails_stops_no_other() -> None:
    """A message that nobody can read, or a study that nobody can judge, must not stop the whole hospital."""
    pipeline = _Steps(KeyError("a defect"))
    _rounds(pipeline).advance()
    assert pipeline.done == ["first", "third"]


def test_a_ledger_that_nobody_can_use_is_asked_once() -> None:
    """Each step would wait for it as long again."""
    pipeline = _Steps(LedgerUnavailable())
    with pytest.raises(LedgerUnavailable):
        _rounds(pipeline).advance()
    assert pipeline.done == ["first"]
