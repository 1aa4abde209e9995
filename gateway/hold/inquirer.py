"""Asks one source, one question at a time, in a thread of its own; answers become evidence in the ledger."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from gateway.domain.errors import HilumError, NoAnswer
from gateway.domain.evidence import SourceCount
from gateway.domain.ids import StudyUID
from gateway.domain.ports import Clock, EvidenceLedger
from gateway.observe.logs import log

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds for which a source that does not answer is left alone


class Source(Protocol):
    """Whoever can say how much there is of a study."""

    @property
    def name(self) -> str:
        """As evidence tells it, such as `PACS by C-FIND`."""
        ...

    def count(self, study: StudyUID) -> SourceCount:
        """How much it has, in limited time; raises NoAnswer."""
        ...


class Inquirer:
    """Implements `gateway.hold.holder.Inquiry`."""

    def __init__(self, source: Source, ledger: EvidenceLedger, clock: Clock, tell: Callable[[], None]) -> None:
        """``tell`` is called after each answer, so that nobody has to look for it."""
        self._source, self._ledger, self._clock, self._tell = source, ledger, clock, tell
        self._changed = threading.Condition()
        self._waiting: list[StudyUID] = []
        self._asking: StudyUID | None = None
        self._failures = 0  # in a row
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"ask {source.name}", daemon=True)

    @property
    def source(self) -> str:
        """Its name in evidence."""
        return self._source.name

    def start(self) -> None:
        """Begins to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Asks nothing more; a question that is under way ends by its own limits, and nobody waits for it."""
        self._stopping.set()
        with self._changed:
            self._changed.notify()

    def ask(self, studies: Sequence[StudyUID]) -> None:
        """Takes the place of what waited before: a study that has gone on meanwhile is not asked about."""
        with self._changed:
            self._waiting = [study for study in studies if study != self._asking]
            if self._waiting:
                self._changed.notify()

    def _run(self) -> None:
        while study := self._next():
            self._ask(study)
            with self._changed:
                self._asking = None
            if self._failures:
                self._stopping.wait(min(_FIRST_PAUSE * 2 ** min(self._failures - 1, 10), _LONGEST_PAUSE))

    def _next(self) -> StudyUID | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping.is_set())
            self._asking = None if self._stopping.is_set() else self._waiting.pop(0)
            return self._asking

    def _ask(self, study: StudyUID) -> None:
        asked_at = self._clock.now()
        try:
            self._ledger.add_evidence(study, self._answer(study, asked_at))
            self._tell()
        except HilumError as error:
            self._failures += 1
            log(stage="hold").error("answer not kept", study_uid=study, reason=error.message)

    def _answer(self, study: StudyUID, asked_at: float) -> SourceCount:
        try:
            answer = replace(self._source.count(study), asked_at=asked_at)
        except NoAnswer as error:
            problem = error.message
        # The edge of a thread that must not end: whatever a peer sends, studies go on without its answer.
        except Exception as error:  # noqa: BLE001
            log(stage="hold").exception("source cannot be asked", source=self.source)
            problem = type(error).__name__
        else:
            self._failures = 0
            return answer
        self._failures += 1
        log(stage="hold").warning("source gives no count", source=self.source, study_uid=study, reason=problem)
        return SourceCount(source=self.source, asked_at=asked_at, problem=problem)
