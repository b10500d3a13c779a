"""The tiers' handles behind one router: the main application's, but for those on other weights; and what rests, and the balance
between them. A tier on other weights has a circuit and a queue of its own, so that one that fails closes no tier for the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from deployments.learning.live.routers_in_use import InUse, Routers
from deployments.learning.live.variant_tiers import Variants
from deployments.traffic.balance import Balancer
from deployments.traffic.queue_exchange import Counts
from deployments.traffic.watched_tier import Watched
from router.errors import UnknownModel
from router.flywheel.variants import tier_of
from router.limits.key_limits import Key
from router.types import Request


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


class Lineups:
    """Those of the routers in use. own: the balance between the main application's tiers."""

    def __init__(self, own: Balancer) -> None:
        self.own = own
        self.known: dict[tuple[int, ...], Lineup] = {}
        """by the handles of tiers on other weights"""

    def of(self, using: InUse) -> Lineup:
        """What answers the requests of a router."""
        key = handles_of(using)
        if (found := self.known.get(key)) is None:
            own, balancer = self.own, self.own
            if using.tiers:
                tiers = {name: using.tiers.get(name, tier) for name, tier in own.watched.items()}
                balancer = Balancer(own.tiers, tiers, own.ingresses, own.clock, own.others, known_as=using.names)
            found = self.known[key] = Lineup(balancer.watched, balancer, using.models)
        return found

    def keep(self, routers: Routers) -> None:
        """Forget those of routers that are not in use any more; requests under way keep theirs."""
        kept = set(map(handles_of, routers.known))
        self.known = {key: lineup for key, lineup in self.known.items() if key in kept}

    def counts(self) -> dict[str, Counts]:
        """This ingress's own requests at all tiers, whatever their weights, for the other ingresses."""
        found = self.own.counts()
        for lineup in self.known.values():
            found |= lineup.balancer.counts()
        return found


def handles_of(using: InUse) -> tuple[int, ...]:
    return tuple(map(id, using.tiers.values()))


def on_weights(asked: Request, key: Key, using: InUse, variants: Variants | None) -> tuple[Request, InUse]:
    """The request of a tier on certain weights, asked for by their name, as `small@3f2a9c41e0d2`; and what answers it.

    Only keys with the right `admin` know that there are such. Raises UnknownModel.
    """
    wanted, router = str(asked.body["model"]), using.router
    tier, may = tier_of(wanted), variants is not None and "admin" in key.rights
    if variants is None or not may or tier not in router.names:
        raise UnknownModel(wanted, list(router.names), router.targets)
    found, chosen = variants.named(wanted), InUse(router)
    if found and found.handle:
        chosen = InUse(router, "", {tier: found.handle}, {tier: found.model}, {tier: found.key})
    elif variants.own_name(tier) != wanted:
        raise UnknownModel(wanted, list(router.names), router.targets)
    return replace(asked, body={**asked.body, "model": tier}), chosen
