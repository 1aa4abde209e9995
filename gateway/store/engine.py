"""Opens the database: durable settings for SQLite, migrations, and one place where its errors become ours."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
import alembic.migration
import alembic.script
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from gateway.domain.errors import ConfigurationError, LedgerError, LedgerUnavailable

_READ_ONLY = "hilum_read"
CASEFOLD = "casefold"  # a function of our own in SQLite


def open_engine(url: str, *, durability: str = "FULL") -> Engine:
    """Connects to the ledger's database.

    SQLite runs in WAL mode with ``synchronous=FULL``: a commit is on disk when it returns, also after a power cut
    (https://www.sqlite.org/pragma.html#pragma_synchronous). With any other durability the last commits may be lost with
    the power, never with the process. Raises LedgerError when the place for it cannot be made,
    and ConfigurationError for a database whose driver is not installed.
    """
    if url.startswith("sqlite"):
        _make_directory(Path(url.removeprefix("sqlite:///")).parent)
        engine = create_engine(
            url,
            poolclass=QueuePool,
            pool_size=5,
            max_overflow=64,
            pool_use_lifo=True,  # the connection used last still has its pages in memory
            connect_args={"timeout": 5.0, "check_same_thread": False},
        )
        _make_durable(engine, durability)
        return engine
    # A partitioned PostgreSQL must not hang a worker for minutes: give up on unacknowledged data after 5 s.
    options: dict[str, Any] = {"connect_timeout": 3, "tcp_user_timeout": 5000}
    if durability != "FULL":
        options["options"] = "-c synchronous_commit=off"
    try:
        return create_engine(url, pool_pre_ping=True, connect_args=options)
    except (ImportError, NoSuchModuleError) as error:
        message = "ledger.url: the database driver is not installed: run `pip install hilum[postgresql]`"
        raise ConfigurationError(message) from error
    except ArgumentError as error:
        raise ConfigurationError("ledger.url: not a database URL") from error


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerError(f"the ledger cannot be kept in {directory}: {error.strerror}") from error


def _make_durable(engine: Engine, durability: str) -> None:
    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, below
        cursor = connection.cursor()
        for pragma in (f"synchronous={durability}", "busy_timeout=5000", "foreign_keys=ON", "journal_mode=WAL"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()
        # SQLite's own `lower` knows the 26 letters of English.
        connection.create_function(CASEFOLD, 1, str.casefold, deterministic=True)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writer takes its lock at once: upgrading a read lock later could fail with "database is locked".
        reading = connection.get_execution_options().get(_READ_ONLY)
        # Said to the driver: through SQLAlchemy it costs as much as everything else in a short transaction.
        driver: Any = connection.connection.dbapi_connection
        driver.execute("BEGIN" if reading else "BEGIN IMMEDIATE")


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction that writes; raises LedgerError when the database cannot be used."""
    with translated(), engine.begin() as connection:
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One consistent snapshot to read from; raises LedgerError when the database cannot be used."""
    with translated(), engine.connect().execution_options(**{_READ_ONLY: True}) as connection, connection.begin():
        yield connection


@contextmanager
def translated() -> Iterator[None]:
    """Turns the database's errors into LedgerError; the statement and its values stay out of the message."""
    try:
        yield
    except DBAPIError as error:
        raise unusable(error.orig) from error
    except sqlite3.Error as error:
        raise unusable(error) from error
    except PoolTimeout as error:
        raise LedgerUnavailable("the ledger cannot be used: every connection to it is busy") from error


def unusable(error: BaseException | None) -> LedgerError:
    """A driver's error as ours."""
    # Locked, full, unreachable: every driver has its OperationalError (PEP 249), and whoever comes next fares no better.
    everybodys = any(one.__name__ == "OperationalError" for one in type(error).__mro__)
    kind = LedgerUnavailable if everybodys else LedgerError
    # PostgreSQL's further lines quote the values.
    return kind(f"the ledger cannot be used: {(str(error).splitlines() or [''])[0]}")


def migrate(engine: Engine) -> None:
    """Brings the tables to this version; raises LedgerError where a newer Hilum has written them."""
    config = alembic.config.Config()
    config.set_main_option("script_location", str(resources.files("gateway.store") / "migrations").replace("%", "%%"))
    scripts = alembic.script.ScriptDirectory.from_config(config)
    head = scripts.get_current_head()
    with translated(), engine.connect().execution_options(**{_READ_ONLY: True}) as connection:
        current = alembic.migration.MigrationContext.configure(connection).get_current_revision()
    if current == head:
        return
    if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
        raise LedgerError(f"the ledger was written by a newer Hilum (schema {current}); this one knows {head}")
    with writing(engine) as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "head")


class LeaseClock:
    """Time for leases: runs on through suspend, never jumps, and starts anew with each boot (then every lease is over)."""

    def __init__(self) -> None:
        boot = Path("/proc/sys/kernel/random/boot_id")
        self.epoch = boot.read_text().strip() if boot.exists() else "monotonic"

    def now(self) -> float:
        """Seconds since an arbitrary moment of this epoch."""
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class DatabaseClock:
    """Time for leases where workers are on many machines: the database's own, which all of them see alike."""

    epoch = "database"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def now(self) -> float:
        """Seconds since the epoch; raises LedgerError."""
        with reading(self._engine) as connection:
            return float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())


def lease_clock(engine: Engine) -> LeaseClock | DatabaseClock:
    """The clock that everybody who uses this ledger shares."""
    return LeaseClock() if engine.dialect.name == "sqlite" else DatabaseClock(engine)
