"""How a server stops: load balancers hear of it at once, new requests are refused a little later, and answers get time to end."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

FAREWELL_S = 1.0  # before running answers are cut: for their last event and their row in the ledger


def never() -> bool:
    return False


@dataclass
class Draining:
    """The stop of this process, if it has begun.

    delay_s: from the beginning until new requests are refused. drain_s: from then until running answers are cut. told: whether
    whoever runs this process is stopping it, who then cuts answers `drain_s` after that. ticks: seconds that never jump.
    """

    delay_s: float = 0.0
    drain_s: float = 0.0
    told: Callable[[], bool] = never
    ticks: Callable[[], float] = time.monotonic
    refuses_s: float = inf
    """when new requests begin to be refused, on `ticks`"""
    cuts_s: float = inf
    """when running answers are cut"""

    def begin(self, delay_s: float | None = None) -> None:
        """delay_s: instead of the usual one. A second call changes nothing."""
        if self.refuses_s == inf:
            self.refuses_s = self.ticks() + (self.delay_s if delay_s is None else delay_s)
            self.cuts_s = self.refuses_s + self.drain_s

    @property
    def begun(self) -> bool:
        if self.refuses_s == inf and self.told():
            self.begin()
            self.cuts_s = self.ticks() + self.drain_s
        return self.refuses_s < inf

    @property
    def refuses(self) -> bool:
        """Whether new requests are refused."""
        return self.begun and self.ticks() >= self.refuses_s

    @property
    def left_s(self) -> float:
        """Seconds that running answers have; infinite while the server is not stopping."""
        return max(0.0, self.cuts_s - min(FAREWELL_S, self.drain_s / 2) - self.ticks()) if self.begun else inf
