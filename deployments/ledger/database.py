"""Finds and opens the ledger's database, and makes or migrates its tables. SQLite by default, PostgreSQL by URL.

SQLite runs in WAL mode, so readers never wait for the writer. Each commit is synced to the disk (synchronous=FULL), which group
commit makes cheap. `sqlite:///FILE?synchronous=NORMAL` syncs only at checkpoints: a killed process still loses nothing, but a
power cut may lose the last commits.
"""

import logging
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from router import config
from router.errors import BadConfig

log = logging.getLogger("stepdown")
PRIVATE = 0o600  # mode of the files: for this user only
BUSY_S = 5.0  # how long a statement waits for another process's lock
SYNCHRONOUS = ("NORMAL", "FULL", "EXTRA")
MIGRATIONS = Path(__file__).parent / "migrations"
FIRST_REVISION = "0001"  # of a database that was made before there were revisions
MIGRATING = threading.Lock()  # alembic has one context for the whole process
POSTGRES_LOCK = 0x57E9D0  # an arbitrary number for the advisory lock by which one process migrates at a time
INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
"""by dialect: SQLAlchemy's INSERT that may have ON CONFLICT"""
# With these a dead network is noticed after seconds; the kernel alone would take a quarter of an hour.
POSTGRES: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 10_000,
    "application_name": "stepdown",
    "options": f"-c lock_timeout={int(BUSY_S)}s -c idle_in_transaction_session_timeout=60s",
}


def state_folder() -> Path:
    """STEPDOWN_STATE_DIR or ~/.local/state/stepdown, readable by this user only. Raises BadConfig where it cannot be made."""
    folder = Path(os.environ.get("STEPDOWN_STATE_DIR") or Path.home() / ".local/state/stepdown").expanduser()
    make_folder(folder, "choose another with STEPDOWN_STATE_DIR")
    return folder


def make_folder(folder: Path, advice: str) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BadConfig(f"the folder {folder} cannot be made ({error}); {advice}") from error


def address(settings: config.Ledger) -> str:
    """The ledger's address as a SQLAlchemy URL."""
    return settings.url or f"sqlite:///{state_folder() / 'ledger.db'}"


def connect(settings: config.Ledger) -> Engine:
    """An engine, which has not connected yet. Raises BadConfig on an address that cannot work."""
    url = read_url(address(settings))
    return sqlite_engine(url) if url.get_backend_name() == "sqlite" else postgres_engine(url)


def read_url(given: str) -> URL:
    """Raises BadConfig."""
    try:
        url = make_url(given)
    except ArgumentError as error:
        raise BadConfig("ledger.url is not an address; expected sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME") from error
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
        raise BadConfig(f"ledger.url: found {url.drivername!r}; expected sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME")
    if url.get_backend_name() == "sqlite" and (url.database or ":memory:") == ":memory:":
        raise BadConfig("ledger.url: a ledger in memory would lose everything; name a file: sqlite:///FILE")
    return url


def sqlite_engine(url: URL) -> Engine:
    """An engine that begins transactions itself: with `BEGIN`, or with `BEGIN IMMEDIATE` inside `writing`."""
    synchronous = str(url.query.get("synchronous", "FULL")).upper()
    if synchronous not in SYNCHRONOUS:
        raise BadConfig(f"ledger.url: synchronous={synchronous} is not one of {', '.join(SYNCHRONOUS)}")
    make_folder(Path(url.database or "").parent, "choose another with ledger.url")
    engine = create_engine(url.difference_update_query(["synchronous"]), connect_args={"timeout": BUSY_S})

    @event.listens_for(engine, "do_connect")
    def before(*_: object) -> None:
        keep_private(Path(url.database or ""))

    @event.listens_for(engine, "connect")
    def opened(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None
        to_wal(connection)
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute("PRAGMA secure_delete=ON")  # deleted texts must not stay in the file

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('sqlite_begin', 'DEFERRED')}")

    return engine


def keep_private(file: Path) -> None:
    """Let only this user read the file, which holds prompts and keys' hashes. SQLite gives its own files beside it the same mode,
    and says what is wrong where the file cannot be made.
    """
    with suppress(OSError):  # O_EXCL: to close a descriptor of a database in use would drop all locks that this process has on it
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDONLY, PRIVATE))
    for part in (file, *(file.with_name(file.name + ending) for ending in ("-wal", "-shm", "-journal"))):
        with suppress(FileNotFoundError):
            mode = stat.S_IMODE(part.stat().st_mode)
            if mode & ~PRIVATE:
                tighten(part, mode)


def tighten(file: Path, mode: int) -> None:
    try:
        file.chmod(mode & PRIVATE)
        log.warning("%s could be read by other users (mode %03o); now only by this one (%03o)", file, mode, mode & PRIVATE)
    except PermissionError:
        log.warning(
            "%s can be read by other users (mode %03o) and is another user's file: its owner should chmod 600", file, mode
        )


def to_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL. SQLite does not wait for a lock here, so processes that start at the same time must retry."""
    until = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # has an effect only in a new file
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.02)


def postgres_engine(url: URL) -> Engine:
    given = {key: value for key, value in POSTGRES.items() if key not in url.query}
    try:
        return create_engine(url, connect_args=given, pool_size=5, max_overflow=10, pool_timeout=BUSY_S)
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise BadConfig("a ledger on PostgreSQL needs psycopg; install it with: pip install 'stepdown[postgres]'") from error


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that writes. SQLite takes its write lock at the start, so that no other writer comes after its first read."""
    with engine.connect().execution_options(sqlite_begin="IMMEDIATE") as connection, connection.begin():
        yield connection


def migrate(engine: Engine) -> None:
    """Bring the tables up to date. Of several processes that start at the same time one does it and the others wait.

    Raises BadConfig where a newer version made the tables, SQLAlchemy's errors where the database does not answer.
    """
    with MIGRATING, writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL lock_timeout = '10min'"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": POSTGRES_LOCK})
        upgrade(connection)


def upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.util.exc import CommandError

    logging.getLogger("alembic").setLevel(logging.WARNING)  # its messages would fill the log at every start
    setup = alembic_setup(connection)
    tables = inspect(connection).get_table_names()
    try:
        if "traces" in tables and "alembic_version" not in tables:
            command.stamp(setup, FIRST_REVISION)
        command.upgrade(setup, "head")
    except CommandError as error:
        raise BadConfig(f"the ledger's tables were made by another version of Stepdown ({error}); use that version") from error


def alembic_setup(connection: Connection) -> Any:
    from alembic.config import Config

    setup = Config()
    setup.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    setup.attributes["connection"] = connection
    return setup


def driver_message(error: Exception) -> str:
    """The first line of the database driver's message: SQLAlchemy adds the statement and its values, which no log may hold."""
    return str(getattr(error, "orig", None) or error).strip().split("\n")[0][:200]
