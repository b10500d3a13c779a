"""Addresses, and tables that are made, kept and changed."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from made import count, trace
from sqlalchemy import text

from deployments.database import address, connect, migrate, writing
from deployments.rows import from_trace
from deployments.schema import metadata, traces
from deployments.store import spool_folder
from deployments.writes import write
from router import config
from router.errors import BadConfig


def test_the_default_is_a_file_in_the_state_folder_for_its_user_only(state: Path) -> None:
    assert address(config.Ledger()) == f"sqlite:///{state}/ledger.db"
    assert state.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ledger.db", "no address"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("mysql://host/name", "found 'mysql'"),
        ("sqlite:///x.db?synchronous=OFF", "synchronous=OFF"),
    ],
)
def test_an_address_that_cannot_work_stops_the_start(url: str, words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        connect(config.Ledger(url=url))


def test_a_folder_that_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadConfig, match="cannot be made"):
        connect(config.Ledger(url=f"sqlite:///{tmp_path}/file/ledger.db"))


def test_a_password_is_in_no_name_of_a_file(state: Path) -> None:
    engine = connect(config.Ledger(url="postgresql://user:secret@db.example:5433/costs"))
    assert engine.url.drivername == "postgresql+psycopg"
    assert spool_folder(engine.url) == state / "spool" / "db.example-5433-costs"


@pytest.mark.parametrize(("query", "level"), [("", 2), ("?synchronous=normal", 1), ("?synchronous=EXTRA", 3)])
def test_how_often_sqlite_syncs(tmp_path: Path, query: str, level: int) -> None:
    engine = connect(config.Ledger(url=f"sqlite:///{tmp_path}/a.db{query}"))
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == level
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    engine.dispose()


def test_migrations_make_the_tables_of_the_schema_in_many_processes_at_once(url: str) -> None:
    engines = [connect(config.Ledger(url=url)) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate, engines))
    with engines[0].connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    for engine in engines:
        engine.dispose()


def test_a_ledger_from_before_there_were_revisions_opens(url: str) -> None:
    engine = connect(config.Ledger(url=url))
    metadata.create_all(engine)
    with writing(engine) as connection:
        write(connection, from_trace(trace("t1")))
    migrate(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "0001"
    assert count(engine, traces) == 1
    engine.dispose()


def test_a_ledger_of_a_newer_version_is_left_alone(url: str) -> None:
    engine = connect(config.Ledger(url=url))
    migrate(engine)
    with writing(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(BadConfig, match="another version"):
        migrate(engine)
    engine.dispose()


def test_a_file_that_is_no_database_stops_the_start(tmp_path: Path) -> None:
    from deployments.store import Store

    (tmp_path / "ledger.db").write_text("a file of something else, and quite a long one at that" * 100)
    with pytest.raises(BadConfig, match="not a database"):
        Store(config.Ledger(url=f"sqlite:///{tmp_path}/ledger.db")).start()


def test_deleted_texts_are_overwritten(tmp_path: Path) -> None:
    engine = connect(config.Ledger(url=f"sqlite:///{tmp_path}/ledger.db"))
    migrate(engine)
    with writing(engine) as connection:
        write(connection, from_trace(trace("t1", prompt="a secret text")))
    with writing(engine) as connection:
        connection.execute(traces.delete())
    engine.dispose()
    sqlite3.connect(tmp_path / "ledger.db").execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert b"a secret text" not in (tmp_path / "ledger.db").read_bytes()
