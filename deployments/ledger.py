"""Every call, once, durably. Requests put their rows in a queue; one thread writes all that waits in one transaction."""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Engine

from deployments.database import address, connect, migrate, state_folder, writing
from deployments.rows import Busy, Rows, from_call, from_trace, from_window, together
from deployments.writes import write
from router import config
from router.errors import LedgerDown
from router.trace import CallRow, Trace, Window

__all__ = ["Ledger", "address", "connect", "migrate", "state_folder", "writing"]

State = Literal["ok", "spooling", "down"]


@dataclass(slots=True)
class Waiting:
    rows: Rows
    loop: asyncio.AbstractEventLoop
    done: "asyncio.Future[None]"

    def tell(self, error: Exception | None = None) -> None:
        self.loop.call_soon_threadsafe(settle, self.done, error)


def settle(done: "asyncio.Future[None]", error: Exception | None) -> None:
    if done.done():
        return
    done.set_exception(error) if error else done.set_result(None)


class Ledger:
    """Open it, then record; safe to share between the tasks of a process."""

    def __init__(self, settings: config.Ledger, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.clock = clock
        self.engine: Engine = connect(settings)
        self.queue: list[Waiting] = []
        self.changed = threading.Condition()
        self.closing = False
        self.writer = threading.Thread(target=self.work, name="ledger", daemon=True)

    async def open(self) -> None:
        await asyncio.to_thread(migrate, self.engine)
        self.writer.start()

    async def record(self, trace: Trace) -> None:
        """Returns when the rows are durable. Raises LedgerDown."""
        await self.put(from_trace(trace))

    async def add(self, calls: Sequence[CallRow]) -> None:
        """Calls made after their trace was recorded: audits."""
        await self.put(Rows(calls=[from_call(call) for call in calls]))

    async def readings(self, busy: Mapping[str, Busy]) -> None:
        await self.put(Rows(readings=dict(busy)))

    async def held(self, windows: Sequence[Window]) -> None:
        await self.put(Rows(windows=[from_window(window) for window in windows]))

    def check(self) -> None:
        """Raises LedgerDown where a request must not be begun."""

    @property
    def state(self) -> State:
        return "ok"

    @property
    def spooled(self) -> int:
        """Rows that wait in the spool."""
        return 0

    async def put(self, rows: Rows) -> None:
        if not len(rows):
            return
        loop = asyncio.get_running_loop()
        waiting = Waiting(rows, loop, loop.create_future())
        with self.changed:
            if self.closing:
                raise LedgerDown("it is closed")
            self.queue.append(waiting)
            self.changed.notify()
        await waiting.done

    def work(self) -> None:
        while batch := self.take():
            error = self.write(together(waiting.rows for waiting in batch))
            for waiting in batch:
                waiting.tell(error)

    def take(self) -> list[Waiting]:
        with self.changed:
            self.changed.wait_for(lambda: self.queue or self.closing)
            batch, self.queue = self.queue, []
            return batch

    def write(self, rows: Rows) -> Exception | None:
        try:
            with writing(self.engine) as connection:
                write(connection, rows)
        except Exception as error:  # noqa: BLE001
            return error
        return None

    async def close(self) -> None:
        with self.changed:
            self.closing = True
            self.changed.notify()
        await asyncio.to_thread(self.writer.join)
        self.engine.dispose()
