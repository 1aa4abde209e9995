"""One question at a time, away from everybody else, whatever the source does."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from gateway.domain.errors import NoAnswer
from gateway.domain.evidence import SourceCount
from gateway.domain.ids import StudyUID
from gateway.hold.inquirer import Inquirer
from tests.support.ledgers import make_ledger

A, B, C = StudyUID("1.1"), StudyUID("1.2"), StudyUID("1.3")


class Scripted:
    """A source that answers when it may."""

    name = "PACS by C-FIND"

    def __init__(self) -> None:
        self.asked: list[StudyUID] = []
        self.may_answer = threading.Event()
        self.was_asked = threading.Semaphore(0)
        self.trouble: Exception | None = None

    def count(self, study: StudyUID) -> SourceCount:
        self.asked.append(study)
        self.was_asked.release()
        assert self.may_answer.wait(30)
        if self.trouble:
            raise self.trouble
        return SourceCount(source=self.name, asked_at=0.0, instances=5)


@pytest.fixture
def running(tmp_path: Path):  # type: ignore[no-untyped-def]
    ledger, source, answered = make_ledger(tmp_path), Scripted(), threading.Semaphore(0)
    inquirer = Inquirer(source, ledger, ledger.clock, answered.release)
    inquirer.start()
    yield inquirer, source, ledger, answered
    inquirer.stop()
    source.may_answer.set()
    ledger.close()


def test_one_question_at_a_time(running) -> None:  # type: ignore[no-untyped-def]
    """A study whose turn has not come when it goes on is not asked about; none is asked about twice at once."""
    inquirer, source, ledger, answered = running
    inquirer.ask([A, B])
    assert source.was_asked.acquire(timeout=30)
    inquirer.ask([A, C])
    source.may_answer.set()
    assert answered.acquire(timeout=30)
    assert answered.acquire(timeout=30)
    assert source.asked == [A, C]
    [said] = ledger.evidence(A)
    assert (said.instances, said.asked_at) == (5, ledger.clock.now())
    assert ledger.evidence(B) == []


@pytest.mark.parametrize("trouble", [NoAnswer("cannot connect"), ZeroDivisionError()])
def test_no_answer_is_evidence_too(running, trouble: Exception) -> None:  # type: ignore[no-untyped-def]
    """What went wrong is written down, and the source is left alone for a while: the next question is not asked at once."""
    inquirer, source, ledger, answered = running
    source.trouble = trouble
    source.may_answer.set()
    inquirer.ask([A])
    assert answered.acquire(timeout=30)
    [said] = ledger.evidence(A)
    assert said.problem == ("cannot connect" if isinstance(trouble, NoAnswer) else "ZeroDivisionError")
    inquirer.ask([B])
    assert source.was_asked.acquire(timeout=30)
    assert not source.was_asked.acquire(timeout=0.2)
    source.trouble = None
    assert answered.acquire(timeout=30)
    assert ledger.evidence(B)[0].problem == ""
