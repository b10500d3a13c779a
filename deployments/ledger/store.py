"""Makes rows durable: in the database while it answers, else in the spool, else not at all (LedgerDown)."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import CompileError, DataError, DBAPIError, IntegrityError, StatementError

from deployments.ledger.database import connect, migrate, state_folder, writing
from deployments.ledger.drainer import Drainer
from deployments.ledger.late_measurements import Late
from deployments.ledger.rows import Rows, together
from deployments.ledger.spool import Spool, reject
from deployments.ledger.writes import write
from router import config
from router.errors import BadConfig, LedgerDown

log = logging.getLogger(__name__)
State = Literal["ok", "spooling", "down"]
ATTEMPTS = 3
AGAIN = {"40P01", "40001"}  # PostgreSQL: a deadlock, which it ended by this error; a serialization failure
ROWS_FAULT = {"22", "23", "54"}  # PostgreSQL's classes: bad data, a constraint, more than an index holds
MISTAKES = ("authentication failed", "does not exist", "unable to open database file", "file is not a database")
DISK_PAUSE_S = 5.0  # after the spool's disk failed, before a request may try it again


class Store:
    """`keep` belongs to one thread, `recover` to another; the rest may be asked from anywhere."""

    def __init__(self, settings: config.Ledger, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings, self.clock = settings, clock
        self.engine: Engine = connect(settings)
        self.spool = Spool(spool_folder(self.engine.url), settings.spool_max_bytes)
        self.late = Late(clock)
        one_writer = self.engine.dialect.name == "sqlite"  # our two threads queue here rather than poll for its lock
        self.turn: AbstractContextManager[object] = threading.Lock() if one_writer else nullcontext()
        self.journals = one_writer and settings.journal_s > 0
        """rows are made durable by the spool, and drained from there all the time"""
        self.drainer = Drainer(settings, clock)
        self.migrated = False
        self.down_since: float | None = None
        """None: the database answers"""
        self.why = ""
        self.disk_failed: float | None = None
        self.rejected = 0
        """rows that no database takes, since the start"""
        self.fallen = threading.Event()
        """rows lie in the spool"""

    @property
    def refusal(self) -> str | None:
        """Why requests must not be begun now; None: they may."""
        since = self.down_since
        if since is None:
            return None
        for_s = self.clock() - since
        if self.settings.down == "refuse":
            return self.why
        if self.disk_failed is not None and self.clock() - self.disk_failed < DISK_PAUSE_S:
            return f"{self.why}; and the spool's disk failed"
        if for_s >= self.settings.spool_max_s:
            return f"{self.why}; for {for_s:.0f} s, spool_max_s allows {self.settings.spool_max_s:g}"
        if self.spool.bytes >= self.settings.spool_max_bytes:
            return f"{self.why}; the spool is full"
        return None

    @property
    def state(self) -> State:
        return "ok" if self.down_since is None else "down" if self.refusal else "spooling"

    def keep(self, parts: Sequence[Rows], now: bool = True) -> None:
        """Returns when they are durable. Raises LedgerDown.

        now: they are to be in the tables, if the database answers.
        """
        if self.down_since is None:
            if not now and self.journalled(parts):
                return None
            try:
                return self.save(together(parts))
            except Exception as error:  # noqa: BLE001 what is not a row's fault is the database's, and rows go to the spool
                self.fell(error)
        if self.settings.down == "refuse":
            raise LedgerDown(self.why)
        try:
            self.spool.append(parts)
        except OSError as error:
            self.disk_failed = self.clock()
            raise LedgerDown(f"{self.why}; the spool: {error}") from error
        self.disk_failed = None

    def journalled(self, parts: Sequence[Rows]) -> bool:
        """Whether one append and one sync made them durable: a tenth of what a transaction with all its sums takes."""
        if not self.journals:
            return False
        try:
            self.spool.append(parts)
        except OSError as error:
            log.warning("rows go straight into the ledger's tables: %s", error)
            return False
        self.fallen.set()
        return True

    def save(self, rows: Rows) -> None:
        """Write to the database; rows that it cannot take go to the file of rejected ones. Raises the database's errors."""
        rows.readings.update(self.late.of(row["id"] for row in rows.calls))
        try:
            missing = self.transact(write, rows)
        except Exception as error:
            if not rows_fault(error):
                raise
            missing = self.save_each(rows)
        self.late.settle(rows.readings, missing)

    def transact(self, action: Callable[[Connection, Rows], Any], rows: Rows) -> Any:
        if not self.migrated:
            migrate(self.engine)
            self.migrated = True
        for attempt in range(ATTEMPTS):
            try:
                with self.turn, writing(self.engine) as connection:
                    return action(connection, rows)
            except DBAPIError as error:
                if attempt == ATTEMPTS - 1 or not (error.connection_invalidated or sqlstate(error) in AGAIN):
                    raise
        raise AssertionError("unreachable")

    def retry_late(self) -> None:
        """For readings whose call another process wrote. Raises the database's errors."""
        if found := self.late.all():
            self.save(Rows(readings=found))

    def save_each(self, rows: Rows) -> set[str]:
        missing, bad = self.transact(write_each, rows)
        for single, why in bad:
            reject(self.spool.folder, single.line(), why)
            self.rejected += len(single)
        return missing

    def start(self) -> None:
        """Make the tables. A database that does not answer yet is one that is down. Raises BadConfig on a mistake."""
        try:
            self.transact(touch, Rows())
        except BadConfig:
            raise
        except Exception as error:
            if any(words in str(error) for words in MISTAKES):
                raise BadConfig(f"ledger.url: the database cannot be used: {shown(error)}; mend the address") from error
            self.fell(error)

    def fell(self, error: Exception) -> None:
        self.why = shown(error)
        log.error("the ledger's database does not take rows, they go to %s: %s", self.spool.folder, self.why)
        self.down_since = self.clock()
        self.fallen.set()

    def rose(self) -> None:
        if self.down_since is not None:
            log.warning("the ledger's database takes rows again, after %.0f s", self.clock() - self.down_since)
        self.down_since = self.disk_failed = None

    def recover(self) -> bool:
        """Try the database if it was down, and drain what waits. False: it still is."""
        try:
            if self.journals and self.down_since is None and self.drained_elsewhere():
                return True
            found, was_down = self.drain(), self.down_since is not None
            self.spool.turn_over()
            if not self.drain() and not found and was_down:
                self.transact(touch, Rows())
            self.rose()
            if was_down:  # what came meanwhile lies in the spool, and nobody was told to fetch it
                self.spool.close_file()
                self.drain()
            return True
        except Exception as error:  # noqa: BLE001 whatever it is, the rows are safe where they lie
            if self.down_since is None:
                self.fell(error)
            self.why = shown(error)
            return False

    def drained_elsewhere(self) -> bool:
        """Whether another process has done it, of this one's rows too."""
        if not self.drainer.there(self.spool.rows):
            return False
        self.spool.turn_over()
        if not self.drainer.drain():
            return False
        self.spool.waiting()  # finds out which files are gone
        return True

    def drain(self) -> int:
        """Of how many files rows were saved."""
        return sum(self.spool.drain(path, self.save, self.refuse_line) for path in self.spool.waiting())

    def refuse_line(self, line: bytes, why: str) -> None:
        reject(self.spool.folder, line, why)
        self.rejected += 1


def write_each(connection: Connection, rows: Rows) -> tuple[set[str], list[tuple[Rows, str]]]:
    """Each row under a savepoint of its own; returns readings without a call, and rows that cannot be written, with why."""
    missing: set[str] = set()
    bad = []
    for single in rows.singles():
        try:
            with connection.begin_nested():
                missing |= write(connection, single)
        except Exception as error:
            if not rows_fault(error):
                raise
            bad.append((single, shown(error)))
    return missing, bad


def touch(connection: Connection, _: Rows) -> None:
    """A write that changes nothing and is committed: it fails on a full disk, as a row would."""
    connection.execute(text("UPDATE alembic_version SET version_num = version_num"))


def rows_fault(error: Exception) -> bool:
    """The row can never be written; else the database is at fault, and the row is kept for later."""
    if isinstance(error, DBAPIError):
        return isinstance(error, DataError | IntegrityError) or (sqlstate(error) or "")[:2] in ROWS_FAULT
    return isinstance(error, StatementError | CompileError | ValueError | TypeError | OverflowError | KeyError)


def shown(error: Exception) -> str:
    """The driver's first line: SQLAlchemy adds the statement and its values, and those are not for logs."""
    return str(getattr(error, "orig", None) or error).strip().split("\n")[0][:200]


def sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


def spool_folder(url: URL) -> Path:
    """Beside SQLite's file; for a server, in the state folder, one for each database."""
    if url.get_backend_name() == "sqlite":
        return Path(f"{Path(url.database or '').absolute()}.spool")
    name = "-".join(str(part) for part in (url.host or url.query.get("host") or "local", url.port, url.database) if part)
    return state_folder() / "spool" / "".join(c if c.isalnum() or c in "-." else "_" for c in name)
