"""Every call, once, durably. Requests put their rows in a queue; one thread writes all that waits in one transaction.

There is no artificial delay: while one transaction is synced, the next one's rows gather (group commit). SQLite's rows are
synced in the spool first, which is quicker, and go into the tables a little later, many at a time (`journal_s`).
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from deployments.ledger.database import address, connect, migrate, state_folder, writing
from deployments.ledger.kept_texts import Texts
from deployments.ledger.retention import Retention
from deployments.ledger.rows import Busy, Rows, finite, from_call, from_trace, from_window
from deployments.ledger.store import State, Store
from deployments.ledger.upkeep import Bookkeeper
from router import config
from router.errors import LedgerDown
from router.trace import CallRow, Trace, Window

__all__ = ["Ledger", "address", "connect", "migrate", "state_folder", "writing"]

log = logging.getLogger(__name__)
GROUP = 500  # requests whose rows go into one transaction, at most
SCAN_S = 30.0  # between looks for files that dead processes left in the spool
RETRY_S, RETRY_MAX_S = 0.2, 5.0  # between attempts to reach a database that is down
LOOK_S = 60.0  # between looks for rows that are too old or too many
TIDY_S = 0.05  # between small deletions: others may write meanwhile
LATE_RETRY_S = 5.0
SETTLE_S = 2.0  # that a reader waits for the rows before it


@dataclass(slots=True)
class Waiting:
    rows: Rows
    now: bool
    loop: asyncio.AbstractEventLoop
    done: "asyncio.Future[None]"


class Ledger:
    """Open it, then record; safe to share between the tasks of a process. Raises BadConfig on a wrong address.

    clock: Unix time, for the age of rows. ticks: seconds that never jump, for how long the database has been away.
    """

    def __init__(
        self, settings: config.Ledger, clock: Callable[[], float] = time.time, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings = settings
        self.store = Store(settings, ticks)
        self.engine = self.store.engine
        self.retention = Retention(settings, clock)
        self.bookkeeper = Bookkeeper(self.store, clock)
        self.texts: Texts | None = None
        self.queue: list[Waiting] = []
        self.changed = threading.Condition()
        self.hurry = threading.Event()
        """somebody waits for what lies in the spool"""
        self.closing = False
        self.next_tidy = self.next_late = 0.0
        self.threads = [threading.Thread(target=run, name="ledger", daemon=True) for run in (self.work, self.mend)]

    async def open(self) -> None:
        """Make or change the tables, start writing, drain what dead processes left in the spool.

        A database that does not answer is no reason not to start. Raises BadConfig on a mistake: a wrong hook or password.
        """
        self.texts = Texts(self.settings)
        await asyncio.to_thread(self.store.start)
        for thread in self.threads:
            thread.start()

    async def record(self, trace: Trace, now: bool = False) -> None:
        """Returns when the trace and its calls are durable. Raises LedgerDown, and then the client must not see an answer.

        now: they are in the tables then, and their budget is settled with them; else within `journal_s`.
        """
        if self.texts is None:
            raise LedgerDown("it is not open yet")
        await self.put(from_trace(self.texts.kept(trace)), now)

    async def add(self, calls: Sequence[CallRow]) -> None:
        """Calls made after their trace was recorded: audits. As durable as `record`, and counted in `hourly` only."""
        await self.put(Rows(calls=[from_call(call) for call in calls]))

    async def readings(self, busy: Mapping[str, Busy]) -> None:
        """Measurements that came late: call id -> (busy_s, gpu_usd). A call that has one keeps it.

        Where the call is not written yet, the reading waits for it in memory, up to ten minutes.
        """
        await self.put(Rows(readings={call: read for call, read in busy.items() if finite(read)}))

    async def held(self, windows: Sequence[Window]) -> None:
        """Of a window that several processes report, the first report is kept."""
        await self.put(Rows(windows=[from_window(window) for window in windows]))

    def check(self) -> None:
        """Costs a microsecond; call it before each request. Raises LedgerDown where the request must not be begun."""
        if self.store.down_since is not None and (why := self.store.refusal):
            raise LedgerDown(why)

    @property
    def state(self) -> State:
        return self.store.state

    @property
    def spooled(self) -> int:
        """Rows of this process that wait in the spool."""
        return self.store.spool.rows

    async def settled(self) -> None:
        """Returns when what this process recorded before is in the tables, or cannot be: for readers."""
        files, until = set(self.store.spool.held), time.monotonic() + SETTLE_S
        self.hurry.set()
        while files & self.store.spool.held.keys() and self.store.down_since is None and time.monotonic() < until:
            await asyncio.sleep(0.005)

    async def put(self, rows: Rows, now: bool = False) -> None:
        if not len(rows):
            return
        loop = asyncio.get_running_loop()
        waiting = Waiting(rows, now, loop, loop.create_future())
        with self.changed:
            if self.closing or not self.threads[0].is_alive():
                raise LedgerDown("it is not open")
            self.queue.append(waiting)
            self.changed.notify()
        await waiting.done

    def work(self) -> None:
        """The writer's thread."""
        while True:
            batch = self.take()
            if batch:
                tell(batch, self.keep(batch))
            elif self.closing:
                return
            self.tidy()

    def take(self) -> list[Waiting]:
        with self.changed:
            self.changed.wait_for(lambda: self.queue or self.closing, timeout=TIDY_S if self.retention.before_s else 1.0)
            batch, self.queue = self.queue[:GROUP], self.queue[GROUP:]
            return batch

    def keep(self, batch: Sequence[Waiting]) -> LedgerDown | None:
        try:
            parts = [waiting.rows for waiting in batch]
            self.store.keep(parts, any(waiting.now for waiting in batch))
        except LedgerDown as error:
            return error
        except Exception as error:
            log.exception("rows were not kept")
            return LedgerDown(f"{type(error).__name__}")
        return None

    def tidy(self) -> None:
        """What may wait: readings whose call was written by another process, old rows."""
        now = time.monotonic()
        try:
            if self.store.down_since is None and now >= self.next_late:
                self.next_late = now + LATE_RETRY_S
                self.store.retry_late()
            if self.store.down_since is None and self.retention.before_s and now >= self.next_tidy:
                self.next_tidy = now + TIDY_S
                self.retention.step(self.engine)
        except Exception as error:  # noqa: BLE001 the next request's rows find out whether the database is down
            self.retention.before_s = None
            log.warning("tidying the ledger failed: %s", error)

    def mend(self) -> None:
        """The other thread: brings the database back and empties the spool, looks for old rows, and keeps the books."""
        pause_s, next_look = 0.0, time.monotonic()
        while not self.closing:
            self.store.fallen.clear()
            well = self.store.recover()
            if well and time.monotonic() >= next_look:
                next_look = time.monotonic() + LOOK_S
                self.look()
            pause_s = SCAN_S if well else min(RETRY_MAX_S, max(RETRY_S, 2 * pause_s)) if pause_s < SCAN_S else RETRY_S
            more = well and self.bookkeeper.step()
            if self.store.fallen.wait(TIDY_S if more else pause_s):
                self.hurry.wait(self.settings.journal_s)
            self.hurry.clear()

    def look(self) -> None:
        try:
            self.retention.look(self.engine)
        except Exception as error:  # noqa: BLE001 it is tried again in a minute
            log.warning("looking for old rows in the ledger failed: %s", error)

    async def close(self) -> None:
        """Writes what waits. What lies in the spool while the database is down stays there for the next start."""
        with self.changed:
            self.closing = True
            self.changed.notify()
        self.store.fallen.set()
        self.hurry.set()
        for thread in self.threads:
            if thread.is_alive():
                await asyncio.to_thread(thread.join)
        await asyncio.to_thread(self.store.drainer.stop)
        if self.store.journals and self.store.down_since is None:
            await asyncio.to_thread(self.store.recover)
        self.store.spool.close_file()
        self.engine.dispose()


def tell(batch: Sequence[Waiting], error: LedgerDown | None) -> None:
    """Wake the requests, each loop once."""
    loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for waiting in batch:
        loops.setdefault(waiting.loop, []).append(waiting.done)
    for loop, futures in loops.items():
        try:
            loop.call_soon_threadsafe(settle, futures, error)
        except RuntimeError:  # its loop was closed: nobody waits any more
            log.debug("rows were kept of requests that are gone")


def settle(futures: Sequence["asyncio.Future[None]"], error: LedgerDown | None) -> None:
    for done in futures:
        if not done.done():
            done.set_exception(error) if error else done.set_result(None)
