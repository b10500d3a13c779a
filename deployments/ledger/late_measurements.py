"""Keeps readings, measurements of a call, that arrive before the call is written."""

import threading
from collections.abc import Callable, Iterable

from deployments.ledger.rows import Busy

LATE_S = 600.0  # how long a reading waits for its call
LATE_MAX = 20_000  # readings that wait at the same time


class LateMeasurements:
    """Readings whose call is not written yet. They wait in memory: a lost one leaves its call without a measurement."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.lock = threading.Lock()
        self.waiting: dict[str, tuple[Busy, float]] = {}
        self.dropped = 0

    def for_calls(self, ids: Iterable[str]) -> dict[str, Busy]:
        with self.lock:
            return {id: self.waiting[id][0] for id in ids if id in self.waiting} if self.waiting else {}

    def settle(self, tried: dict[str, Busy], missing: set[str]) -> None:
        """Of the readings `tried`, keep those whose call is `missing`, each for LATE_S, and forget the others."""
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
                    break  # the dict is in the order of their arrival
                del self.waiting[id]
                self.dropped += 1

    def all(self) -> dict[str, Busy]:
        with self.lock:
            return {id: busy for id, (busy, _) in self.waiting.items()}
