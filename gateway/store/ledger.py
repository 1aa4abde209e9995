"""The ledger on SQL: the truth about every study, job and delivery."""

from __future__ import annotations

from sqlalchemy import Engine

from gateway.domain.ports import Clock
from gateway.store.archive import Archive
from gateway.store.commitment_requests import CommitmentRequests
from gateway.store.context import Context
from gateway.store.crew import Crew
from gateway.store.editions import Editions
from gateway.store.engine import DatabaseClock, LeaseClock, migrate, open_engine
from gateway.store.engine import lease_clock as shared_clock
from gateway.store.evidence import EvidenceRows
from gateway.store.inbox import Inbox
from gateway.store.intake import Intake
from gateway.store.jobs import Jobs
from gateway.store.letters import Correspondence
from gateway.store.outbox import Outbox
from gateway.store.proofs import Proofs
from gateway.store.reading import Reading
from gateway.store.retractions import Retractions
from gateway.store.routing import Routing


class SqlLedger(
    Intake,
    EvidenceRows,
    CommitmentRequests,
    Routing,
    Jobs,
    Crew,
    Outbox,
    Editions,
    Proofs,
    Retractions,
    Inbox,
    Context,
    Correspondence,
    Reading,
    Archive,
):
    """Implements `gateway.domain.ports.Ledger` and `gateway.domain.archive.Archive` on SQLite or PostgreSQL."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        *,
        lease_clock: LeaseClock | DatabaseClock | None = None,
        max_failed: int = 3,
        max_lost: int = 10,
        intake_engine: Engine | None = None,
    ) -> None:
        self.engine = engine
        self.intake_engine = intake_engine or engine
        self.clock = clock
        self.lease_clock = lease_clock or shared_clock(engine)
        self.max_failed = max_failed
        self.max_lost = max_lost

    def close(self) -> None:
        """Closes every connection."""
        self.engine.dispose()
        self.intake_engine.dispose()


def open_ledger(
    url: str, clock: Clock, *, max_failed: int = 3, max_lost: int = 10, durable_intake: bool = True
) -> SqlLedger:
    """Opens the ledger and brings its tables to this version; raises LedgerError.

    Where intake need not be durable, rows of instances may be lost with the power (not with the process); all else is.
    """
    engine = open_engine(url)
    migrate(engine)
    intake = None if durable_intake else open_engine(url, durability="NORMAL")
    return SqlLedger(engine, clock, max_failed=max_failed, max_lost=max_lost, intake_engine=intake)
