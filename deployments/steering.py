"""Where a request goes once the tiers' queues are seen: what this ingress has under way stands for its share of the cluster.

With several ingress replicas each sees its own calls and takes an equal part of every tier's places as its own; Serve
spreads clients over them evenly. Replicas are those seen running at the last look (deployments/provision.py).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from classifiers import Rule
from deployments.watched import Watched
from router.config import Tier, VllmTier
from router.errors import Overloaded
from router.load import Asked, Full, Load, Steering, adjust
from router.types import Decision

EVERY_S = 0.5  # between two looks; the controller stands news of up to two seconds
NEW = 0.3  # weight of the newest measurement of a rate
PLENTY = 1e9  # places of a tier whose size is not ours to know


@dataclass(slots=True)
class Seen:
    """Of one tier at the last look."""

    load: Load
    finished: int
    rate: float | None = None


@dataclass(slots=True)
class Balancer:
    """clock: seconds that never jump. ingresses: that share the work."""

    tiers: Sequence[Tier]
    watched: Mapping[str, Watched]
    ingresses: int = 1
    clock: Callable[[], float] = time.monotonic
    state: Steering = field(default_factory=Steering)
    seen: dict[str, Seen] = field(default_factory=dict)
    at_s: float = float("-inf")

    def place(self, decided: Decision, rule: Rule | None) -> Decision:
        """The same, or moved to a tier that the promise allows. rule: None where the tier was asked for by name.

        Raises Overloaded where every tier that may take the request is full.
        """
        now_s = self.clock()
        if now_s - self.at_s >= EVERY_S:
            self.look(now_s)
        placed = adjust(self.asked(decided, rule), [self.seen[tier.name].load for tier in self.tiers], self.state, now_s)
        if isinstance(placed, Full):
            raise Overloaded(placed.retry_after_s)
        name = self.tiers[placed.tier].name
        return decided if name == decided.tier else replace(decided, tier=name, first=(name,), reason="moved off a queue")

    def asked(self, decided: Decision, rule: Rule | None) -> Asked:
        names = [tier.name for tier in self.tiers]
        p = np.array([decided.p.get(name, 0.0) for name in names])
        cost = np.array([decided.cost.get(name, 0.0) for name in names])
        chosen = names.index(decided.tier)
        allowed = [k for k, name in enumerate(names) if name in decided.p and name not in decided.excluded]
        return Asked(p, cost, rule, allowed if rule and chosen in allowed else [chosen], chosen)

    def look(self, now_s: float) -> None:
        passed_s, self.at_s = now_s - self.at_s, now_s
        for tier in self.tiers:
            watched, before = self.watched[tier.name], self.seen.get(tier.name)
            capacity = self.capacity(tier, watched)
            rate = before.rate if before else None
            if before and before.load.busy >= 1 and watched.finished > before.finished:
                measured = (watched.finished - before.finished) / passed_s
                rate = measured if rate is None else rate + NEW * (measured - rate)
            load = Load(watched.waiting, watched.running, capacity, rate, now_s)
            self.seen[tier.name] = Seen(load, watched.finished, rate)

    def capacity(self, tier: Tier, watched: Watched) -> float:
        """A tier of which no replica was seen counts as whole: it may have come up since, and if not it fails by itself."""
        if not isinstance(tier, VllmTier):
            return PLENTY
        return (watched.count or tier.replicas) * tier.max_ongoing / self.ingresses
