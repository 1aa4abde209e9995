"""The ledger as workers see it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from gateway.domain.crew import Room, WorkerState
from gateway.domain.ids import JobId
from gateway.domain.job import Claim, Job, Priority
from gateway.domain.messages import Outcome, RequestedProcedure
from gateway.domain.schedule import FRESH, Turn
from gateway.domain.states import JobState
from gateway.domain.study import Instance


class JobLedger(Protocol):
    """What workers need."""

    def claim(
        self,
        owner: str,
        lease: float,
        *,
        turn: Turn = FRESH,
        devices: Collection[str] = ("cpu",),
        least: Priority = Priority.OFF_PEAK,
        room: Room | None = None,
    ) -> Claim | None:
        """The next job (`gateway.domain.schedule`) for one of these devices and of at least this priority, or nothing; where
        there is no room for it yet, it waits."""
        ...

    def heartbeat(
        self, claim: Claim, lease: float, stage: str = "", fraction: float | None = None, held_mib: int = 0
    ) -> None:
        """Prolongs the lease, and says how far the job is and what its process holds; raises LeaseLost."""
        ...

    def commit(self, claim: Claim, outcome: Outcome, peak_mib: int = 0) -> None:
        """RUNNING -> READY or QUARANTINED; raises LeaseLost. Safe to repeat after an unknown commit."""
        ...

    def fail(self, claim: Claim, reason: str, *, permanent: bool = False) -> JobState:
        """The attempt failed: QUEUED again, or DEAD when attempts are used up or trying again is useless."""
        ...

    def job(self, job: JobId) -> Job:
        """One job; raises NotFound."""
        ...

    def give_back(self, claim: Claim) -> None:
        """The worker stops: QUEUED again, no attempt counted."""
        ...

    def input_instances(self, job: JobId) -> Sequence[Instance]:
        """The instances of a job's input set."""
        ...

    def requested_procedure(self, job: JobId) -> RequestedProcedure | None:
        """What was ordered, as far as the EHR has told and it fits the images."""
        ...

    def attend(self, state: WorkerState) -> None:
        """A worker says that it is there."""
        ...

    def leave(self, owner: str) -> None:
        """A worker has ended."""
        ...
