"""The tiers' handles behind one router: the main application's, but for those on other weights; and what rests, and the balance
between them. A tier on other weights has a circuit and a queue of its own, so that one that fails closes no tier for the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deployments.traffic.balance import Balancer
from deployments.traffic.watched_tier import Watched


@dataclass(frozen=True, slots=True)
class Lineup:
    """What answers the requests of one bundle."""

    tiers: Mapping[str, Watched]
    """all of them, cheapest first"""
    balancer: Balancer
    models: Mapping[str, str]
    """fingerprints of those on other weights"""

    def left_s(self, name: str) -> float:
        """Seconds for which no request should be sent to a tier; 0: send."""
        return self.tiers[name].breaker.left_s(name)

    def open_s(self, name: str) -> float:
        """Seconds for which a tier's circuit lets nothing pass; 0: it does."""
        return self.tiers[name].breaker.open_s(name)

    def down(self, names: Sequence[str]) -> dict[str, str]:
        """Those of the tiers that should get no request, each with the reason; none if that would be all of them."""
        resting = {name: found[name] for name in names if (found := self.tiers[name].breaker.resting([name]))}
        return {} if len(resting) == len(names) else resting
