"""Where a request goes once the tiers' queues are seen, over the whole cluster: what this ingress has under way, to the
moment, and what the others said of theirs, to a second (deployments/traffic/queue_exchange.py).

Where the others are silent, and there are some, this ingress takes an equal part of every tier's places as its own: Serve
spreads clients over them evenly. Replicas are those seen running at the last look.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from classifiers import Rule
from deployments.traffic.queue_exchange import Counts, News
from deployments.traffic.watched_tier import Watched
from router.config import Tier, VllmTier
from router.errors import Overloaded
from router.traffic.load import Asked, BalanceState, Full, Load, adjust
from router.types import Decision

EVERY_S = 0.5  # between two looks; the controller stands news of up to two seconds
NEW = 0.3  # weight of the newest measurement of a rate
PLENTY = 1e9  # places of a tier whose size is not ours to know


@dataclass(slots=True)
class Seen:
    """Of one tier at the last look. finished: by whom this ingress knows of, since they began."""

    load: Load
    finished: int
    known: bool
    """whether the others were heard"""
    rate: float | None = None


@dataclass(slots=True)
class Balancer:
    """clock: seconds that never jump. ingresses: that share the work."""

    tiers: Sequence[Tier]
    watched: Mapping[str, Watched]
    ingresses: int = 1
    clock: Callable[[], float] = time.monotonic
    news: News = field(default_factory=News)
    """what the other ingresses said last"""
    state: BalanceState = field(default_factory=BalanceState)
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
        p = [decided.p.get(name, 0.0) for name in names]
        cost = [decided.cost.get(name, 0.0) for name in names]
        chosen = names.index(decided.tier)
        allowed = [k for k, name in enumerate(names) if name in decided.p and name not in decided.excluded]
        return Asked(p, cost, rule, allowed if rule and chosen in allowed else [chosen], chosen)

    def counts(self) -> dict[str, Counts]:
        """What this ingress has under way: for the others."""
        return {name: Counts(of.waiting, of.running, of.finished) for name, of in self.watched.items()}

    def look(self, now_s: float) -> None:
        passed_s, self.at_s = now_s - self.at_s, now_s
        known = self.ingresses == 1 or self.news.fresh(now_s)
        for tier in self.tiers:
            self.seen[tier.name] = self.of(tier, known, passed_s, now_s)

    def of(self, tier: Tier, known: bool, passed_s: float, now_s: float) -> Seen:
        watched, before = self.watched[tier.name], self.seen.get(tier.name)
        others = self.news.others.get(tier.name, Counts()) if known else Counts()
        finished, rate = watched.finished + others.finished, before.rate if before else None
        if before and before.known == known and before.load.busy >= 1 and finished > before.finished:
            measured = (finished - before.finished) / passed_s
            rate = measured if rate is None else rate + NEW * (measured - rate)
        if before and before.known != known and rate is not None:  # of all, or of our part alone
            rate *= self.ingresses if known else 1 / self.ingresses
        share = 1 if known else self.ingresses
        waiting, running = watched.waiting + others.waiting, watched.running + others.running
        load = Load(waiting, running, self.capacity(tier, watched) / share, rate, now_s, self.is_cold(tier))
        return Seen(load, finished, known, rate)

    def capacity(self, tier: Tier, watched: Watched) -> float:
        """A tier of which no replica was seen counts as whole: it may have come up since, and if not it fails by itself."""
        if not isinstance(tier, VllmTier):
            return PLENTY
        return float((watched.count or max(1, tier.replicas)) * tier.max_ongoing)

    def is_cold(self, tier: Tier) -> bool:
        return tier.sleeps and self.watched[tier.name].count == 0

    def cold(self) -> dict[str, str]:
        """Tiers that have no replica because nobody asks, each with that as a reason."""
        return {tier.name: "no replica is warm" for tier in self.tiers if self.is_cold(tier)}
