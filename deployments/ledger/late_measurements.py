"""Measurements that come before the call they belong to is written."""

import threading
from collections.abc import Callable, Iterable

from deployments.ledger.rows import Busy

LATE_S, LATE_MAX = 600.0, 20_000  # a reading waits so long for its call; so many at most


class Late:
    """Readings whose call is not written yet. They wait in memory: one that is lost leaves its call without a measurement."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.lock = threading.Lock()
        self.waiting: dict[str, tuple[Busy, float]] = {}
        self.dropped = 0

    def of(self, ids: Iterable[str]) -> dict[str, Busy]:
        with self.lock:
            return {id: self.waiting[id][0] for id in ids if id in self.waiting} if self.waiting else {}

    def settle(self, tried: dict[str, Busy], missing: set[str]) -> None:
        """Keep those of `tried` that are `missing`, each until its time is over; forget the others."""
        now = self.clock()
        with self.lock:
            for id, busy in tried.items():
                if id not in missing:
                    self.waiting.pop(id, None)
                elif id not in self.waiting:
                    self.waiting[id] = (busy, now + LATE_S)
            over = len(self.waiting) - LATE_MAX
            for n, (id, (_, until)) in enumerate(list(self.waiting.items())):
                if until >= now and n >= over:
                    break  # they lie in the order in which they came
                del self.waiting[id]
                self.dropped += 1

    def all(self) -> dict[str, Busy]:
        with self.lock:
            return {id: busy for id, (busy, _) in self.waiting.items()}
