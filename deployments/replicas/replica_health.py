"""Which replicas of a tier are ill, as one process sees it, and which of them has which call.

Ray Serve takes a replica out when its process has died, or when three health checks in a row have failed, half a minute.
Until then one that answers every call with an error at once has the shortest queue, and so draws the tier's calls to it.
Two ends of a tier meet in this process, and here: the one that hears the answers (serve_tier.py) says what became of a
call; the one at which Serve chooses (replica_choice.py) leaves out who failed several times in a row.
"""

import random
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from router.trace import HEDGE
from router.traffic.breaker import Breaker

CALLS, ILL = 10_000, 64  # calls of which is remembered who had them; circuits, before those of replicas that went are dropped
ENDS = 5  # failures in a row after which a replica says itself that it is ill


@dataclass(slots=True)
class Health:
    """Of the replicas of one tier."""

    breaker: Breaker = field(default_factory=lambda: Breaker(time.monotonic, random.random))
    sent: "OrderedDict[str, str]" = field(default_factory=OrderedDict)
    """call id -> replica"""
    replicas: Sequence[str] = ()
    """at the last choice"""

    def choice(self, replicas: Sequence[str], call: str = "") -> Sequence[str]:
        """Who may be asked: neither the ill, nor who had the call before; where that leaves nobody, any."""
        self.replicas = replicas
        if not self.breaker.circuits and call not in self.sent and not call.endswith(HEDGE):
            return replicas
        had = {self.sent.get(call), self.sent.get(call.removesuffix(HEDGE))}
        well = [name for name in replicas if not self.breaker.left_s(name)]
        return [name for name in well if name not in had] or well or replicas

    def routed(self, call: str, replica: str) -> None:
        self.breaker.sent(replica)
        if call:
            self.sent[call] = replica
            while len(self.sent) > CALLS:
                self.sent.popitem(last=False)

    def worked(self, call: str) -> None:
        if self.breaker.circuits and (replica := self.sent.get(call)):
            self.breaker.worked(replica)

    def failed(self, call: str, replica: str = "") -> None:
        """replica: where the failure names it."""
        if replica := replica or self.sent.get(call, ""):
            self.breaker.failed(replica)
        if len(self.breaker.circuits) > ILL:
            for gone in set(self.breaker.circuits) - set(self.replicas):
                self.breaker.worked(gone)

    def some_well(self) -> bool:
        """Whether a failure may be one replica's alone."""
        return len(self.replicas) > 1 and any(not self.breaker.left_s(name) for name in self.replicas)


TIERS: dict[str, Health] = {}


def of(deployment: str) -> Health:
    """The one that all ends of a deployment in this process share."""
    return TIERS.setdefault(deployment, Health())


@dataclass(slots=True)
class Streak:
    """In a replica: failures of its engine in a row."""

    failed: int = 0

    def note(self, status: int) -> None:
        self.failed = self.failed + 1 if status >= 500 else 0

    def check(self) -> None:
        """Raises RuntimeError, for Serve's health check: three in a row, and Serve puts another replica in its place."""
        if self.failed >= ENDS:
            raise RuntimeError(f"the engine failed {self.failed} times in a row")
