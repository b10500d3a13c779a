"""Records every call once, durably. Requests put rows in a queue; one thread writes all that waits in one transaction.

This group commit adds no delay: while one transaction is synced, the rows of the next gather. SQLite's rows are synced in the
spool first, which is quicker, and go into the tables a little later, many at a time (`journal_s`). docs/ledger.md draws the road.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from deployments.ledger.kept_texts import KeptTexts
from deployments.ledger.retention import Retention
from deployments.ledger.rows import Busy, Rows, finite, from_call, from_trace, from_window
from deployments.ledger.store import LedgerState, Store
from deployments.ledger.upkeep import Upkeep
from router import config
from router.errors import LedgerDown
from router.trace import CallRow, Trace, Window

log = logging.getLogger(__name__)
GROUP = 500  # most requests whose rows go into one transaction
SCAN_S = 30.0  # between scans for files that dead processes left in the spool
# Between attempts to reach a database that is down: at first, and at most.
RETRY_S = 0.2
RETRY_MAX_S = 5.0
RETENTION_S = 60.0  # between looks for rows that are too old or too many
TIDY_S = 0.05  # between small deletions, so that others can write meanwhile
LATE_RETRY_S = 5.0  # between attempts to match readings with calls that another process wrote
SETTLE_S = 2.0  # how long a reader waits for the rows recorded before it


@dataclass(slots=True)
class Waiting:
    """Rows in the queue, and the future that ends when they are durable. now: they must go into the tables at once."""

    rows: Rows
    now: bool
    loop: asyncio.AbstractEventLoop
    done: "asyncio.Future[None]"


class Ledger:
    """Records traces, calls, readings and windows durably. To be opened first; tasks of a process may share it.

    clock: Unix time, for the age of rows. ticks: seconds that never jump, for how long the database has been down.
    """

    def __init__(
        self, settings: config.Ledger, clock: Callable[[], float] = time.time, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        """Raises BadConfig on a wrong address."""
        self.settings = settings
        self.store = Store(settings, ticks)
        self.engine = self.store.engine
        self.retention = Retention(settings, clock)
        self.upkeep = Upkeep(self.store, clock)
        self.texts: KeptTexts | None = None
        self.queue: list[Waiting] = []
        self.changed = threading.Condition()
        self.hurry = threading.Event()
        """set when a reader waits for the rows in the spool"""
        self.closing = False
        self.next_tidy = self.next_late = 0.0
        self.threads = [threading.Thread(target=run, name="ledger", daemon=True) for run in (self.write, self.recover)]

    async def open(self) -> None:
        """Make or migrate the tables, start the threads, drain what dead processes left in the spool.

        Starts even if the database does not answer. Raises BadConfig on a mistake: a wrong hook or password.
        """
        self.texts = KeptTexts(self.settings)
        await asyncio.to_thread(self.store.start)
        for thread in self.threads:
            thread.start()

    async def record(self, trace: Trace, now: bool = False) -> None:
        """Return when the trace and its calls are durable. Raises LedgerDown; then the client must not see the answer.

        now: put them into the tables, which settles their budget, before returning; otherwise that happens within `journal_s`.
        """
        if self.texts is None:
            raise LedgerDown("it is not open yet")
        await self.put(from_trace(self.texts.kept(trace)), now)

    async def add(self, calls: Sequence[CallRow]) -> None:
        """Record calls made after their trace: audits. As durable as `record`."""
        await self.put(Rows(calls=[from_call(call) for call in calls]))

    async def readings(self, busy: Mapping[str, Busy]) -> None:
        """Record measurements that came late: call id -> (busy_s, gpu_usd). A call that has a measurement keeps it.

        A reading whose call is not written yet waits for it in memory, up to ten minutes.
        """
        await self.put(Rows(readings={call: reading for call, reading in busy.items() if finite(reading)}))

    async def held(self, windows: Sequence[Window]) -> None:
        """Record windows. Where several processes report the same window, the first report is kept."""
        await self.put(Rows(windows=[from_window(window) for window in windows]))

    def check(self) -> None:
        """To be called before each request; takes a microsecond. Raises LedgerDown where the request must not begin."""
        if self.store.down_since is not None and (why := self.store.refusal):
            raise LedgerDown(why)

    @property
    def state(self) -> LedgerState:
        return self.store.state

    @property
    def spooled(self) -> int:
        """This process's rows in the spool."""
        return self.store.spool.rows

    async def settled(self) -> None:
        """Return when the rows that this process recorded before are in the tables, or cannot be. For readers."""
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

    def write(self) -> None:
        """The first thread: writes what waits, and tidies up between writes."""
        while True:
            batch = self.take()
            if batch:
                wake(batch, self.keep(batch))
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
        """Do what is not urgent: match readings with calls that another process wrote, delete old rows."""
        now = time.monotonic()
        try:
            if self.store.down_since is None and now >= self.next_late:
                self.next_late = now + LATE_RETRY_S
                self.store.retry_late()
            if self.store.down_since is None and self.retention.before_s and now >= self.next_tidy:
                self.next_tidy = now + TIDY_S
                self.retention.step(self.engine)
        except Exception as error:  # noqa: BLE001 the next write finds out whether the database is down
            self.retention.before_s = None
            log.warning("tidying the ledger failed: %s", error)

    def recover(self) -> None:
        """The second thread: recovers the database, drains the spool, looks for old rows, and does the upkeep of the sums."""
        retry_s, next_look = RETRY_S, time.monotonic()
        while not self.closing:
            self.store.rows_spooled.clear()
            well = self.store.recover()
            if well and time.monotonic() >= next_look:
                next_look = time.monotonic() + RETENTION_S
                self.look_for_old_rows()
            if well:
                pause_s = TIDY_S if self.upkeep.step() else SCAN_S
                retry_s = RETRY_S
            else:
                pause_s = min(RETRY_MAX_S, retry_s)
                retry_s = 2 * pause_s
            if self.store.rows_spooled.wait(pause_s):
                self.hurry.wait(self.settings.journal_s)
            self.hurry.clear()

    def look_for_old_rows(self) -> None:
        try:
            self.retention.look(self.engine)
        except Exception as error:  # noqa: BLE001 it is tried again in a minute
            log.warning("looking for old rows in the ledger failed: %s", error)

    async def close(self) -> None:
        """Write what waits. Rows in the spool of a database that is down stay there for the next start."""
        with self.changed:
            self.closing = True
            self.changed.notify()
        self.store.rows_spooled.set()
        self.hurry.set()
        for thread in self.threads:
            if thread.is_alive():
                await asyncio.to_thread(thread.join)
        await asyncio.to_thread(self.store.drainer.stop)
        if self.store.journals and self.store.down_since is None:
            await asyncio.to_thread(self.store.recover)
        self.store.spool.close_file()
        self.engine.dispose()


def wake(batch: Sequence[Waiting], error: LedgerDown | None) -> None:
    """End the requests' futures, with one wake-up for each event loop."""
    loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for waiting in batch:
        loops.setdefault(waiting.loop, []).append(waiting.done)
    for loop, futures in loops.items():
        try:
            loop.call_soon_threadsafe(end, futures, error)
        except RuntimeError:  # the loop was closed, so nobody waits
            log.debug("rows of requests that have left were kept")


def end(futures: Sequence["asyncio.Future[None]"], error: LedgerDown | None) -> None:
    for done in futures:
        if not done.done():
            done.set_exception(error) if error else done.set_result(None)
