"""Makes rows durable: in the database while it answers, otherwise in the spool, otherwise not at all (LedgerDown)."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal, TypeVar

from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import CompileError, DataError, DBAPIError, IntegrityError, StatementError

from deployments.ledger.database import connect, driver_message, migrate, state_folder, writing
from deployments.ledger.drainer import Drainer
from deployments.ledger.late_measurements import LateMeasurements
from deployments.ledger.rows import Rows, together
from deployments.ledger.spool import Spool, reject
from deployments.ledger.writes import write
from router import config
from router.errors import BadConfig, LedgerDown

log = logging.getLogger(__name__)
T = TypeVar("T")
LedgerState = Literal["ok", "spooling", "down"]
ATTEMPTS = 3  # for a transaction that fails by chance
RETRIED = {"40P01", "40001"}  # PostgreSQL: deadlock detected, serialization failure
ROWS_FAULT = {"22", "23", "54"}  # PostgreSQL's classes of errors: bad data, a violated constraint, a limit exceeded
# Words in the errors of an address that can never work.
MISTAKES = ("authentication failed", "does not exist", "unable to open database file", "file is not a database")
DISK_PAUSE_S = 5.0  # after the spool's disk failed, until a request may try it again


class Store:
    """Keeps rows, and recovers after an outage. `keep` belongs to one thread, `recover` to another, the rest to any."""

    def __init__(self, settings: config.Ledger, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings, self.clock = settings, clock
        self.engine: Engine = connect(settings)
        self.spool = Spool(spool_folder(self.engine.url), settings.spool_max_bytes)
        self.late = LateMeasurements(clock)
        one_writer = self.engine.dialect.name == "sqlite"
        self.write_turn: AbstractContextManager[object] = threading.Lock() if one_writer else nullcontext()
        """lets our two threads queue for SQLite's write lock, which they would poll for otherwise"""
        self.journals = one_writer and settings.journal_s > 0
        """rows always go to the spool first, and from there into the tables"""
        self.drainer = Drainer(settings, clock)
        self.migrated = False
        self.down_since: float | None = None
        """None: the database answers"""
        self.why = ""
        """the error by which the database went down"""
        self.disk_failed: float | None = None
        """when the spool's disk failed last; None: it works"""
        self.rejected = 0
        """rows since the start that no database can take"""
        self.rows_spooled = threading.Event()
        """set when there are rows in the spool"""

    @property
    def refusal(self) -> str | None:
        """Why requests must not begin now; None: they may."""
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
        if self.spool.size >= self.settings.spool_max_bytes:
            return f"{self.why}; the spool is full"
        return None

    @property
    def state(self) -> LedgerState:
        if self.down_since is None:
            return "ok"
        return "down" if self.refusal else "spooling"

    def keep(self, parts: Sequence[Rows], now: bool = True) -> None:
        """Return when the rows are durable. Raises LedgerDown.

        now: write them to the tables, if the database answers.
        """
        if self.down_since is None:
            if not now and self.journalled(parts):
                return
            try:
                self.save(together(parts))
                return
            except Exception as error:  # noqa: BLE001 an error that is no row's fault is the database's
                self.mark_down(error)
        if self.settings.down == "refuse":
            raise LedgerDown(self.why)
        try:
            self.spool.append(parts)
        except OSError as error:
            self.disk_failed = self.clock()
            raise LedgerDown(f"{self.why}; the spool: {error}") from error
        self.disk_failed = None

    def journalled(self, parts: Sequence[Rows]) -> bool:
        """Make rows durable in the spool, in a tenth of the time of a transaction with all its sums. False: they are not."""
        if not self.journals:
            return False
        try:
            self.spool.append(parts)
        except OSError as error:
            log.warning("rows go straight into the ledger's tables: %s", error)
            return False
        self.rows_spooled.set()
        return True

    def save(self, rows: Rows) -> None:
        """Write to the database; rows that it can never take go to the file of rejected rows. Raises the database's errors."""
        rows.readings.update(self.late.for_calls(row["id"] for row in rows.calls))
        try:
            missing = self.transact(lambda connection: write(connection, rows))
        except Exception as error:
            if not rows_fault(error):
                raise
            missing = self.save_each(rows)
        self.late.settle(rows.readings, missing)

    def transact(self, action: Callable[[Connection], T]) -> T:
        if not self.migrated:
            migrate(self.engine)
            self.migrated = True
        for attempt in range(ATTEMPTS):
            try:
                with self.write_turn, writing(self.engine) as connection:
                    return action(connection)
            except DBAPIError as error:
                if attempt == ATTEMPTS - 1 or not (error.connection_invalidated or sqlstate(error) in RETRIED):
                    raise
        raise AssertionError("unreachable")

    def retry_late(self) -> None:
        """Write readings whose call another process has written by now. Raises the database's errors."""
        if found := self.late.all():
            self.save(Rows(readings=found))

    def save_each(self, rows: Rows) -> set[str]:
        missing, bad = self.transact(lambda connection: write_each(connection, rows))
        for single, why in bad:
            reject(self.spool.folder, single.line(), why)
            self.rejected += len(single)
        return missing

    def start(self) -> None:
        """Make the tables. A database that does not answer counts as down. Raises BadConfig on a mistake."""
        try:
            self.transact(touch)
        except BadConfig:
            raise
        except Exception as error:
            if any(words in str(error) for words in MISTAKES):
                raise BadConfig(
                    f"ledger.url: the database cannot be used: {driver_message(error)}; correct the address"
                ) from error
            self.mark_down(error)

    def mark_down(self, error: Exception) -> None:
        self.why = driver_message(error)
        log.error("the ledger's database does not take rows, they go to %s: %s", self.spool.folder, self.why)
        self.down_since = self.clock()
        self.rows_spooled.set()

    def mark_up(self) -> None:
        if self.down_since is not None:
            log.warning("the ledger's database takes rows again, after %.0f s", self.clock() - self.down_since)
        self.down_since = self.disk_failed = None

    def recover(self) -> bool:
        """Try the database if it was down, and drain the spool. False: it is still down."""
        try:
            if self.journals and self.down_since is None and self.drained_by_child():
                return True
            found, was_down = self.drain(), self.down_since is not None
            self.spool.turn_over()
            if not self.drain() and not found and was_down:
                self.transact(touch)
            self.mark_up()
            if was_down:  # rows that came meanwhile are in the spool, and nothing would announce them
                self.spool.close_file()
                self.drain()
            return True
        except Exception as error:  # noqa: BLE001 whatever it is, the rows are safe in the spool
            if self.down_since is None:
                self.mark_down(error)
            self.why = driver_message(error)
            return False

    def drained_by_child(self) -> bool:
        """Whether the child process has drained the spool, this process's rows included."""
        if not self.drainer.available(self.spool.rows):
            return False
        self.spool.turn_over()
        if not self.drainer.drain():
            return False
        self.spool.waiting()  # notices which files are gone
        return True

    def drain(self) -> int:
        """Save the rows of all files that may be drained. Returns of how many files."""
        return sum(self.spool.drain(path, self.save, self.refuse_line) for path in self.spool.waiting())

    def refuse_line(self, line: bytes, why: str) -> None:
        reject(self.spool.folder, line, why)
        self.rejected += 1


def write_each(connection: Connection, rows: Rows) -> tuple[set[str], list[tuple[Rows, str]]]:
    """Write each row under its own savepoint. Returns readings without a call, and rows that cannot be written and why."""
    missing: set[str] = set()
    bad = []
    for single in rows.singles():
        try:
            with connection.begin_nested():
                missing |= write(connection, single)
        except Exception as error:
            if not rows_fault(error):
                raise
            bad.append((single, driver_message(error)))
    return missing, bad


def touch(connection: Connection) -> None:
    """A write that changes nothing, but fails where a row would, as on a full disk."""
    connection.execute(text("UPDATE alembic_version SET version_num = version_num"))


def rows_fault(error: Exception) -> bool:
    """Whether the row can never be written. Otherwise the database is at fault, and the row is kept for later."""
    if isinstance(error, DBAPIError):
        return isinstance(error, DataError | IntegrityError) or (sqlstate(error) or "")[:2] in ROWS_FAULT
    return isinstance(error, StatementError | CompileError | ValueError | TypeError | OverflowError | KeyError)


def sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


def spool_folder(url: URL) -> Path:
    """Beside SQLite's file; for a server, a folder for each database in the state folder."""
    if url.get_backend_name() == "sqlite":
        return Path(f"{Path(url.database or '').absolute()}.spool")
    name = "-".join(str(part) for part in (url.host or url.query.get("host") or "local", url.port, url.database) if part)
    return state_folder() / "spool" / "".join(c if c.isalnum() or c in "-." else "_" for c in name)
