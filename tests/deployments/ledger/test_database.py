"""Addresses, and tables that are made, kept and changed."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from made import count, rows_of, trace
from sqlalchemy import Engine, text

from deployments.ledger import schema
from deployments.ledger.database import FIRST_REVISION, address, alembic_setup, connect, keep_private, migrate, writing
from deployments.ledger.rows import from_trace, from_window
from deployments.ledger.schema import calls, metadata, traces, windows
from deployments.ledger.store import spool_folder
from deployments.ledger.writes import write
from router import config
from router.errors import BadConfig
from router.trace import Window

DAY = 86400


def test_the_default_is_a_file_in_the_state_folder_for_its_user_only(state: Path) -> None:
    assert address(config.Ledger()) == f"sqlite:///{state}/ledger.db"
    assert state.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ledger.db", "not an address"),
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


def without(row: dict[str, Any], added: str) -> dict[str, Any]:
    """A row as it was before a column was added."""
    return {name: value for name, value in row.items() if name != added}


def made_by_the_first(engine: Engine) -> None:
    """Tables of the first revision with three days of sums, of which only the last day still has its row, and windows."""
    with writing(engine) as connection:
        command.upgrade(alembic_setup(connection), FIRST_REVISION)
        rows = from_trace(trace("t1", began_s=2 * DAY + 60.0))
        connection.execute(traces.insert(), [without(row, "router") for row in rows.traces])
        connection.execute(calls.insert(), [without(row, "model") for row in rows.calls])
        for hour in (0, 3600, DAY, 2 * DAY):
            for key in ("a", "b"):
                sums = f"{hour}, '{key}', 'small'"
                connection.execute(text(f"INSERT INTO hourly VALUES ({sums}, 'answer', 1, 100, 20, 10, 0.25, 2.0, 0.5)"))
                decided = f"{sums}, 'balanced', 'good enough', 'direct'"
                connection.execute(text(f"INSERT INTO hourly_traces VALUES ({decided}, 1, 0, 0.25, 1.0, 0.25, 0.75, 1)"))
        held = [from_window(Window("small", at, 1800, 2, 4, 3.0)) for at in (0, 1800, 3600)]
        connection.execute(windows.insert(), held + [from_window(Window("large", DAY, 1800, 1, 8))])


def requests_by_day(engine: Engine) -> dict[int, int]:
    return {row["day"]: row["requests"] for row in rows_of(engine, schema.daily_totals)}


@pytest.mark.parametrize("marked", [True, False], ids=["first revision", "before there were revisions"])
def test_an_old_ledger_opens_and_gets_the_sums_by_the_day(url: str, marked: bool) -> None:
    engine = connect(config.Ledger(url=url))
    made_by_the_first(engine)
    if not marked:
        with writing(engine) as connection:
            connection.execute(text("DROP TABLE alembic_version"))
    migrate(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    assert count(engine, traces) == 1
    of_day = {(row["day"], row["key_id"]): (row["calls"], row["busy_s"]) for row in rows_of(engine, schema.daily)}
    assert of_day == {(day, key): (2 if not day else 1, 4.0 if not day else 2.0) for day in (0, DAY, 2 * DAY) for key in "ab"}
    assert requests_by_day(engine) == {0: 4, DAY: 2, 2 * DAY: 2}
    assert count(engine, schema.daily_traces) == count(engine, schema.daily_keys) == 6
    held = {
        (row["hour"], row["tier"]): (row["replica_s"], row["accelerator_s"], row["usd"])
        for row in rows_of(engine, schema.hourly_held)
    }
    assert held == {(0, "small"): (7200, 28800, 24), (3600, "small"): (3600, 14400, 12), (DAY, "large"): (1800, 14400, 0)}
    with writing(engine) as connection:  # and goes on from there
        write(connection, from_trace(trace("t2", key_id="a", began_s=DAY + 5.0)))
    assert requests_by_day(engine) == {0: 4, DAY: 3, 2 * DAY: 2}
    engine.dispose()


@pytest.mark.slow
def test_a_ledger_of_a_newer_version_is_left_alone(url: str) -> None:
    engine = connect(config.Ledger(url=url))
    migrate(engine)
    with writing(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(BadConfig, match="another version"):
        migrate(engine)
    engine.dispose()


def test_a_file_that_is_no_database_stops_the_start(tmp_path: Path) -> None:
    from deployments.ledger.store import Store

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


def modes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}


def test_a_ledger_in_a_folder_that_was_there_is_for_its_user_only(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    engine = connect(config.Ledger(url=f"sqlite:///{tmp_path}/ledger.db"))
    migrate(engine)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        assert modes(tmp_path) == dict.fromkeys(("ledger.db", "ledger.db-wal", "ledger.db-shm"), 0o600)


def test_a_ledger_that_others_could_read_is_closed_to_them_and_it_is_said_once(tmp_path: Path, caplog) -> None:
    address = f"sqlite:///{tmp_path}/ledger.db"
    migrate(connect(config.Ledger(url=address)))
    (tmp_path / "ledger.db").chmod(0o664)
    (tmp_path / "ledger.db-wal").touch(0o644)
    (tmp_path / "ledger.db-wal").chmod(0o644)
    for _ in range(2):
        migrate(connect(config.Ledger(url=address)))
    assert set(modes(tmp_path).values()) == {0o600}
    assert caplog.text.count("ledger.db could be read by other users (mode 664)") == 1
    assert caplog.text.count("ledger.db-wal could be read by other users (mode 644)") == 1


def test_a_mode_that_is_tighter_stays(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch(0o400)
    keep_private(tmp_path / "ledger.db")
    assert modes(tmp_path) == {"ledger.db": 0o400}
