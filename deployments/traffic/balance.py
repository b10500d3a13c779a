"""Moves a request to another tier when queues grow, over the whole cluster: this ingress's own counts, which are exact, and the
other ingresses' counts, which are up to a second old (deployments/traffic/queue_exchange.py).

Tiers that share replicas have one queue: each is seen with the requests of all of them.

While the others are silent, this ingress assumes an equal share of every tier's places: Serve spreads clients evenly over
ingresses. Replicas are those that ran at the last look.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from classifiers import Rule
from deployments.traffic.queue_exchange import Counts, OtherIngresses
from deployments.traffic.watched_tier import Watched
from router.config import Tier
from router.errors import Overloaded
from router.traffic.load import Asked, BalanceState, Full, Load, adjust
from router.types import Decision

EVERY_S = 0.5  # between two looks; the controller tolerates counts that are up to two seconds old
NEW = 0.3  # weight of the newest measurement of a rate


@dataclass(slots=True)
class Seen:
    """One tier at the last look."""

    load: Load
    finished: int
    """requests finished since the start, by all ingresses that were heard"""
    known: bool
    """whether the other ingresses were heard"""
    rate: float | None = None
    """requests finished a second"""


@dataclass(slots=True)
class Balancer:
    """clock: seconds that never jump. ingresses: how many share the work. known_as: tier -> the name by which ingresses tell each
    other its counts, where that is not its own.
    """

    tiers: Sequence[Tier]
    watched: Mapping[str, Watched]
    ingresses: int = 1
    clock: Callable[[], float] = time.monotonic
    others: OtherIngresses = field(default_factory=OtherIngresses)
    steering: BalanceState = field(default_factory=BalanceState)
    seen: dict[str, Seen] = field(default_factory=dict)
    at_s: float = float("-inf")
    """the last look"""
    known_as: Mapping[str, str] = field(default_factory=dict)

    def place(self, decided: Decision, rule: Rule | None) -> Decision:
        """The same decision, or one for another tier that keeps the promise. rule: None if the client named the tier.

        Raises Overloaded if every tier that may take the request is full.
        """
        now_s = self.clock()
        if now_s - self.at_s >= EVERY_S:
            self.look(now_s)
        placed = adjust(self.choices(decided, rule), [self.seen[tier.name].load for tier in self.tiers], self.steering, now_s)
        if isinstance(placed, Full):
            raise Overloaded(placed.retry_after_s)
        name = self.tiers[placed.tier].name
        return decided if name == decided.tier else replace(decided, tier=name, first=(name,), reason="moved off a queue")

    def choices(self, decided: Decision, rule: Rule | None) -> Asked:
        names = [tier.name for tier in self.tiers]
        p = [decided.p.get(name, 0.0) for name in names]
        cost = [decided.cost.get(name, 0.0) for name in names]
        chosen = names.index(decided.tier)
        allowed = [k for k, name in enumerate(names) if name in decided.p and name not in decided.excluded]
        return Asked(p, cost, rule, allowed if rule and chosen in allowed else [chosen], chosen)

    def counts(self) -> dict[str, Counts]:
        """This ingress's own requests, for the other ingresses."""
        return {
            self.known_as.get(name, name): Counts(tier.waiting, tier.running, tier.finished)
            for name, tier in self.watched.items()
        }

    def siblings(self, tier: str) -> list[str]:
        """The tiers that the same replicas answer for, itself included."""
        host = next(t.runs_on for t in self.tiers if t.name == tier)
        return [t.name for t in self.tiers if t.runs_on == host]

    def elsewhere(self, tier: str) -> float:
        """Requests at a tier by the other ingresses, as last heard; 0 while they are silent. tier: as ingresses know it."""
        heard = self.others.counts.get(tier, Counts()) if self.others.fresh(self.clock()) else Counts()
        return heard.waiting + heard.running

    def here(self, names: Sequence[str]) -> Counts:
        """This ingress's own requests at these tiers together."""
        return sum((Counts(t.waiting, t.running, t.finished) for t in map(self.watched.__getitem__, names)), Counts())

    def look(self, now_s: float) -> None:
        passed_s, self.at_s = now_s - self.at_s, now_s
        known = self.ingresses == 1 or self.others.fresh(now_s)
        for tier in self.tiers:
            self.seen[tier.name] = self.look_at(tier, known, passed_s, now_s)

    def look_at(self, tier: Tier, known: bool, passed_s: float, now_s: float) -> Seen:
        siblings, before = self.siblings(tier.name), self.seen.get(tier.name)
        heard = [self.others.counts.get(self.known_as.get(name, name), Counts()) for name in siblings] if known else []
        both, rate = self.here(siblings) + sum(heard, Counts()), before.rate if before else None
        finished = both.finished
        if before and before.known == known and before.load.busy >= 1 and finished > before.finished:
            measured = (finished - before.finished) / passed_s
            rate = measured if rate is None else rate + NEW * (measured - rate)
        if before and before.known != known and rate is not None:  # from our share alone to the whole, or back
            rate *= self.ingresses if known else 1 / self.ingresses
        share = 1 if known else self.ingresses
        capacity = tier.capacity(self.watched[tier.runs_on].count) / share
        load = Load(both.waiting, both.running, capacity, rate, now_s, self.is_cold(tier))
        return Seen(load, finished, known, rate)

    def is_cold(self, tier: Tier) -> bool:
        return tier.sleeps and self.watched[tier.runs_on].count == 0

    def cold(self) -> dict[str, str]:
        """Tiers that sleep, each with that as the reason not to use it."""
        return {tier.name: "no replica is warm" for tier in self.tiers if self.is_cold(tier)}
