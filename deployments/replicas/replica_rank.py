"""In which order the replicas of a tier are tried for a call: those that are well, the one that has read its beginning first.

A pure choice over what this process knows. Lanes use it for every call (deployments/lane/lanes.py), and share the conversations
and the health with Ray Serve's choice for what goes by handle (replica_choice.py), which may run in another thread.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock

from deployments.replicas.replica_health import ReplicaHealth, health_of
from deployments.replicas.shared_homes import HOMES
from router.traffic.affinity import Affinity

Queue = Callable[[str], float]
"""replica -> its calls"""


def none_known(name: str) -> float:
    """A process without lanes has no calls on them."""
    return 0.0


@dataclass(slots=True)
class ReplicaRank:
    """What this process remembers of the replicas of one tier. health: which of them are ill."""

    health: ReplicaHealth
    affinity: Affinity = field(default_factory=Affinity)
    lanes: Queue = none_known
    """calls that are there by lanes"""
    sample: Callable[[Sequence[str], int], list[str]] = random.sample
    lock: Lock = field(default_factory=Lock)

    def order(self, names: Sequence[str], call_id: str, hint: str, queue: Queue) -> Iterator[str]:
        """Those that may have the call, the first choice first. Without a hint, the shorter queue of two."""
        well = self.health.choice(names, call_id)
        if len(well) < 2:
            yield from well
            return
        first = self.preferred(hint, well, queue) if hint else sorted(self.sample(well, 2), key=queue)
        yield from first
        yield from sorted((name for name in well if name not in first), key=queue)

    def preferred(self, hint: str, names: Sequence[str], queue: Queue) -> list[str]:
        """A few of them, the conversation's own first."""
        with self.lock:
            return self.affinity.preferred(hint, names, queue)

    def routed(self, call_id: str, hint: str, name: str) -> None:
        """The call is sent to this replica."""
        self.health.routed(call_id, name)
        if hint:
            with self.lock:
                self.affinity.answered(hint, name)

    def moved(self, conversation: str, name: str) -> None:
        """Another ingress has sent a conversation to this replica."""
        with self.lock:
            self.affinity.remember(conversation, name)


BY_DEPLOYMENT: dict[str, ReplicaRank] = {}
"""A global for the reason of `replica_health.BY_DEPLOYMENT`"""


def rank_of(deployment: str) -> ReplicaRank:
    """The one that all parts of this process share."""
    if deployment not in BY_DEPLOYMENT:
        rank = BY_DEPLOYMENT[deployment] = ReplicaRank(health_of(deployment))
        HOMES.know(deployment, rank.affinity, rank.moved)
    return BY_DEPLOYMENT[deployment]
