"""Keeps the ledger's sums in order from its own thread, a little at a time: closes days and merges old windows."""

import logging
import time
from collections.abc import Callable

from deployments.ledger import machine_time_sums
from deployments.ledger.store import Store
from router.costs.machine_time import HOUR_S

log = logging.getLogger(__name__)


class Upkeep:
    """Closes one day or merges one hour's windows at each `step`. clock: Unix time."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self.store, self.clock = store, clock
        self.hours: list[int] = []
        """hours whose windows can be merged"""
        self.looked: int | None = 0
        """windows up to here were looked at, Unix time; None: all were"""
        self.looked_at = 0.0
        """when, Unix time"""

    def step(self) -> bool:
        """Do one write of a few milliseconds. False: nothing is left to do."""
        try:
            return self.close_one() or self.merge_one()
        except Exception as error:  # noqa: BLE001 it is tried again
            log.warning("the upkeep of the ledger's sums failed and will be retried: %s", type(error).__name__)
            return False

    def close_one(self) -> bool:
        with self.store.engine.connect() as connection:
            days = machine_time_sums.closable(connection, self.clock())
        if days:
            self.store.transact(lambda connection: machine_time_sums.close_day(connection, days[0]))
        return bool(days)

    def merge_one(self) -> bool:
        if not self.hours:
            self.look()
        if not self.hours:
            return self.looked is not None
        hour = self.hours.pop(0)
        self.store.transact(lambda connection: machine_time_sums.merge(connection, hour))
        return True

    def look(self) -> None:
        """Find the next hours to merge. When all was looked at, look an hour later for what has become old since."""
        now = self.clock()
        if self.looked is None:
            if now - self.looked_at < HOUR_S:
                return
            self.looked = int(self.looked_at - machine_time_sums.MERGE_AFTER_S) - HOUR_S
        with self.store.engine.connect() as connection:
            self.hours, self.looked = machine_time_sums.mergeable(connection, self.looked, now)
        self.looked_at = now
