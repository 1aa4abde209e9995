"""The ledger on SQL: the truth about every study, job and delivery."""

from __future__ import annotations

from sqlalchemy import Engine

from gateway.domain.ports import Clock
from gateway.store.context import Context
from gateway.store.engine import LeaseClock, migrate, open_engine
from gateway.store.inbox import Inbox
from gateway.store.intake import Intake
from gateway.store.jobs import Jobs
from gateway.store.outbox import Outbox
from gateway.store.reading import Reading
from gateway.store.routing import Routing


class SqlLedger(Intake, Routing, Jobs, Outbox, Inbox, Context, Reading):
    """Implements `gateway.domain.ports.Ledger` on SQLite or PostgreSQL."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        *,
        lease_clock: LeaseClock | None = None,
        max_failed: int = 3,
        max_lost: int = 10,
    ) -> None:
        self.engine = engine
        self.clock = clock
        self.lease_clock = lease_clock or LeaseClock()
        self.max_failed = max_failed
        self.max_lost = max_lost

    def close(self) -> None:
        """Closes every connection."""
        self.engine.dispose()


def open_ledger(url: str, clock: Clock, *, max_failed: int = 3, max_lost: int = 10) -> SqlLedger:
    """Opens the ledger and brings its tables to this version; raises LedgerError."""
    engine = open_engine(url)
    migrate(engine)
    return SqlLedger(engine, clock, max_failed=max_failed, max_lost=max_lost)
