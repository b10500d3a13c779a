"""Which replicas of a tier are ill, as one process sees it, and which of them has which call.

Ray Serve takes a replica out when its process has died, or when three health checks in a row have failed, half a minute.
Until then a replica that answers every call at once with an error has the shortest queue, and so draws the tier's calls.
Two parts of a process share what is known here: the one that hears the answers (serve_tier.py) reports what became of a
call; the one in which Serve chooses a replica (replica_choice.py) leaves out those that failed several times in a row.
"""

import random
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from router.trace import HEDGE
from router.traffic.breaker import Breaker

CALLS = 10_000  # calls whose replica is remembered
MOST_CIRCUITS = 64  # above this the circuits of replicas that no longer exist are dropped
FAILURES_IN_A_ROW = 5  # after which a replica reports itself ill


@dataclass(slots=True)
class ReplicaHealth:
    """What this process knows of the replicas of one tier."""

    breaker: Breaker = field(default_factory=lambda: Breaker(time.monotonic, random.random))
    sent: "OrderedDict[str, str]" = field(default_factory=OrderedDict)
    """call id -> replica"""
    replicas: Sequence[str] = ()
    """at the last choice"""

    def choice(self, replicas: Sequence[str], call: str = "") -> Sequence[str]:
        """Those that are well and have not had the call before; if there are none, those that are well; if none, all."""
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

    def failed(self, call: str) -> None:
        if replica := self.sent.get(call, ""):
            self.breaker.failed(replica)
        if len(self.breaker.circuits) > MOST_CIRCUITS:
            for gone in set(self.breaker.circuits) - set(self.replicas):
                self.breaker.worked(gone)

    def some_well(self) -> bool:
        """Whether a failure may be one replica's alone."""
        return len(self.replicas) > 1 and any(not self.breaker.left_s(name) for name in self.replicas)


BY_DEPLOYMENT: dict[str, ReplicaHealth] = {}
"""A global, as both parts of the process must find the same object and Serve constructs one of them without our arguments."""


def health_of(deployment: str) -> ReplicaHealth:
    """The one that all parts of this process share."""
    return BY_DEPLOYMENT.setdefault(deployment, ReplicaHealth())


@dataclass(slots=True)
class FailureStreak:
    """Counts, inside a replica, the failures of its engine in a row."""

    failed: int = 0

    def note(self, status: int) -> None:
        self.failed = self.failed + 1 if status >= 500 else 0

    def check(self) -> None:
        """Serve's health check. Raises RuntimeError when ill; after three in a row Serve replaces the replica."""
        if self.failed >= FAILURES_IN_A_ROW:
            raise RuntimeError(f"the engine failed {self.failed} times in a row")
