"""How far learning is, for pages that many may ask for: read from the database in a thread, and at most every two seconds."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from pkgutil import resolve_name
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from deployments.ledger.database import driver_message
from router.config import Config

log = logging.getLogger("stepdown")
KEPT_S = 2.0  # how long a status that was read is shown
WAIT_S = 2.0  # how long a page waits for the database; then it shows what was read last
Read = Callable[[Engine, Config, float], Mapping[str, Any]]
"""engine, configuration, Unix time -> JSON"""


class ShownStatus:
    """The status as the ingress shows it. clock: seconds that never jump."""

    def __init__(
        self, engine: Engine, config: Config, read: Read | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.engine, self.config, self.clock = engine, config, clock
        self.read = read
        self.last: dict[str, Any] = {"collect": config.learning.collect, "start": config.learning.start}
        self.read_s: float | None = None
        self.reading: asyncio.Task[None] | None = None

    async def now(self) -> dict[str, Any]:
        """What was read last, at most `KEPT_S` ago unless the database does not answer; then it says so."""
        if self.read_s is None or self.clock() - self.read_s >= KEPT_S:
            if self.reading is None or self.reading.done():
                self.reading = asyncio.create_task(self.renew())
            await asyncio.wait({self.reading}, timeout=WAIT_S)
        return dict(self.last)

    async def renew(self) -> None:
        try:
            found = await asyncio.to_thread(self.found)
            found.pop("unknown", None)
        except SQLAlchemyError as error:
            found = {**self.last, "unknown": f"the ledger's database does not answer: {driver_message(error)}"}
        except Exception as error:
            if "unknown" not in self.last:  # said once, not at each look
                log.exception("the status of learning could not be read")
            found = {**self.last, "unknown": f"it could not be read: {type(error).__name__}"}
        self.last, self.read_s = found, self.clock()

    def found(self) -> dict[str, Any]:
        read = self.read or resolve_name("deployments.learning.status:status")
        settings = self.config.learning
        return {"collect": settings.collect, "start": settings.start, **read(self.engine, self.config, time.time())}
