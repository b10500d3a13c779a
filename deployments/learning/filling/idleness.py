"""Whether a tier is idle: no call of a client's is waiting or running there, in any ingress.

Tiers on CPUs share the machine's, so a call to one of them slows the others: they are idle together, and only after a moment
in which none of them was asked.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from deployments.traffic.watched_tier import Watched
from router.config import Tier

QUIET_S = 0.2  # without a call of a client's, where tiers share processors


@dataclass(slots=True)
class OwnCalls:
    """Our own calls by tier, which are not clients'."""

    running: Counter[str] = field(default_factory=Counter)
    finished: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def call(self, tier: str) -> Iterator[None]:
        """Around one call, and nothing else: what the tier counts at the same moment is subtracted."""
        self.running[tier] += 1
        try:
            yield
        finally:
            self.running[tier] -= 1
            self.finished[tier] += 1


@dataclass(slots=True)
class Idleness:
    """elsewhere: calls to a tier by other ingresses. clock: seconds that never jump."""

    tiers: Mapping[str, Watched]
    settings: Mapping[str, Tier]
    own: OwnCalls
    elsewhere: Callable[[str], float]
    clock: Callable[[], float] = time.monotonic
    finished: dict[str, int] = field(default_factory=dict)
    """clients' calls that had ended at the last look"""
    busy_s: float = float("-inf")
    """when a tier that shares processors was last seen busy"""

    @property
    def sharing(self) -> list[str]:
        """Tiers that share the processors of this cluster's machines."""
        return [name for name, tier in self.settings.items() if tier.local and not tier.accelerators]

    def waits(self, *names: str) -> str:
        """Why these tiers may not be asked now; empty: they may."""
        sharing = self.sharing
        self.look(sharing)
        for name in names:
            if self.settings[name].sleeps and not self.tiers[self.settings[name].runs_on].count:
                return f"{name} sleeps"
            if self.tiers[name].resting() is not None:
                return f"{name} does not answer"
            if self.calls(name) > 0:
                return f"{name} is not idle"
        if set(names) & set(sharing) and self.clock() - self.busy_s < QUIET_S:
            return "the processors are not idle"
        return ""

    def calls(self, name: str) -> float:
        """Clients' calls now at the replicas that answer for a tier."""
        return sum(self.calls_of(other) for other, tier in self.settings.items() if tier.runs_on == self.settings[name].runs_on)

    def calls_of(self, name: str) -> float:
        tier = self.tiers[name]
        return tier.running + tier.waiting - self.own.running[name] + self.elsewhere(name)

    def look(self, sharing: list[str]) -> None:
        """Note whether one of them was busy since the last look."""
        finished = {name: self.tiers[name].finished - self.own.finished[name] for name in sharing}
        if any(self.calls(name) > 0 for name in sharing) or (self.finished and finished != self.finished):
            self.busy_s = self.clock()
        self.finished = finished
