"""The database: durable settings, migrations, locks, and errors of ours."""

from __future__ import annotations

import multiprocessing
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, text

from gateway.domain.errors import ConfigurationError, LedgerError
from gateway.store.engine import migrate, open_engine, reading, writing
from gateway.store.ledger import open_ledger
from gateway.store.schema import metadata
from tests.support.ledgers import make_ledger
from tests.support.received import MovedClock, instance


def url(directory: Path) -> str:
    return f"sqlite:///{directory / 'ledger.db'}"


@pytest.fixture
def engine(tmp_path: Path):  # type: ignore[no-untyped-def]
    made = open_engine(url(tmp_path))
    yield made
    made.dispose()


def test_migrations_give_the_schema(engine: Engine) -> None:
    """Tables made by the migrations are the tables that the code works with."""
    migrate(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() is not None


def test_every_connection_is_durable(engine: Engine) -> None:
    """FULL and WAL hold on each connection of the pool, not only on the first."""
    migrate(engine)
    held = [engine.connect() for _ in range(8)]
    try:
        for connection in held:
            values = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("synchronous", "journal_mode", "foreign_keys", "busy_timeout")
            }
            assert values == {"synchronous": 2, "journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 5000}
            connection.rollback()
    finally:
        for connection in held:
            connection.close()


def test_a_failed_transaction_leaves_nothing(engine: Engine) -> None:
    """What is written before an error is gone after it, tables included."""
    with pytest.raises(RuntimeError), writing(engine) as connection:
        connection.execute(text("CREATE TABLE t (a INTEGER)"))
        connection.execute(text("INSERT INTO t VALUES (1)"))
        raise RuntimeError
    with pytest.raises(LedgerError, match="no such table"), reading(engine) as connection:
        connection.execute(text("SELECT a FROM t"))


def test_a_reader_sees_one_moment(engine: Engine) -> None:
    """What another commits while one reads is not seen half."""
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE t (a INTEGER)"))
    with reading(engine) as reader:
        assert reader.execute(text("SELECT count(*) FROM t")).scalar() == 0
        with writing(engine) as writer:
            writer.execute(text("INSERT INTO t VALUES (1)"))
        assert reader.execute(text("SELECT count(*) FROM t")).scalar() == 0


def test_reopening_keeps_everything(tmp_path: Path) -> None:
    """What is in the ledger is there after the next start, and migrating again changes nothing."""
    for number in (1, 2):
        ledger = open_ledger(url(tmp_path), MovedClock())
        assert ledger.add_instance(instance(number)) == "new"
        assert ledger.list_studies()[0]["instances"] == number
        ledger.close()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """An older Hilum does not touch the ledger of a newer one."""
    open_ledger(url(tmp_path), MovedClock()).close()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as other, other:
        other.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(LedgerError, match=r"written by a newer Hilum \(schema 9999\)"):
        open_ledger(url(tmp_path), MovedClock())


def test_a_locked_ledger_is_an_error_in_seconds(tmp_path: Path) -> None:
    """With the database locked by somebody else a write ends with LedgerError after the busy timeout, and reading goes on."""
    ledger = make_ledger(tmp_path)
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        started = time.monotonic()
        with pytest.raises(LedgerError, match="locked"):
            ledger.add_instance(instance())
        assert 4 < time.monotonic() - started < 7
        assert ledger.list_studies() == []
        other.execute("ROLLBACK")
    assert ledger.add_instance(instance()) == "new"
    ledger.close()


def test_a_statement_that_fails_is_an_error_of_ours(tmp_path: Path) -> None:
    """What the driver says of an instance's own statements reaches nobody with the values in it, and nothing is half done."""
    ledger, one = make_ledger(tmp_path), instance()
    refusal = "CREATE TRIGGER refuse BEFORE INSERT ON instances BEGIN SELECT RAISE(ABORT, 'disk full'); END"
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as other:
        other.execute(refusal)
        with pytest.raises(LedgerError, match="disk full") as said:
            ledger.add_instance(one)
        assert one.header.sop_instance_uid not in said.value.message
        assert ledger.list_studies() == []
        other.execute("DROP TRIGGER refuse")
    assert ledger.add_instance(one) == "new"
    ledger.close()


def test_what_is_no_database(tmp_path: Path) -> None:
    """A file of something else in the ledger's place is an error of ours, and is left alone."""
    (tmp_path / "ledger.db").write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(LedgerError, match="not a database"):
        open_ledger(url(tmp_path), MovedClock())
    assert (tmp_path / "ledger.db").read_bytes().startswith(b"not a database")


def test_a_place_that_cannot_be_made(tmp_path: Path) -> None:
    """A file where the directory should be is one sentence."""
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="cannot be kept in"):
        open_engine(f"sqlite:///{tmp_path}/file/ledger.db")


@pytest.mark.parametrize("address", ["nothing at all", "postgresql+nodriver://h/d", "mystery://h/d"])
def test_a_database_that_cannot_be_spoken_to(address: str) -> None:
    """A missing driver and a wrong address are the site's configuration."""
    with pytest.raises(ConfigurationError, match=r"ledger\.url"):
        open_engine(address)


def _migrate(address: str) -> None:
    open_ledger(address, MovedClock()).close()


def test_two_processes_migrate_at_once(tmp_path: Path) -> None:
    """Gateway and worker may start together on an empty directory."""
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_migrate, args=(url(tmp_path),)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
