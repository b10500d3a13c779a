"""The tiers that can be asked afterwards, by the names of their weights."""

from collections.abc import Mapping
from typing import TypeVar

from deployments.learning.live.variant_tiers import Variants
from deployments.traffic.watched_tier import Watched
from router.config import Tier

T = TypeVar("T")


class KnownTiers:
    """own: the main application's, by tier. tiers: their settings. models: their fingerprints.

    Its mappings are changed in place: whoever holds them sees what is known now.
    """

    def __init__(self, own: Mapping[str, Watched], tiers: Mapping[str, Tier], models: Mapping[str, str]) -> None:
        self.own, self.own_settings, self.own_models = own, tiers, models
        self.tiers: dict[str, Watched] = dict(own)
        self.settings: dict[str, Tier] = dict(tiers)
        self.models: dict[str, str] = dict(models)
        self.keys: dict[str, str] = {}
        """name -> by what ingresses tell each other how busy it is, where that is another"""

    def update(self, variants: Variants) -> None:
        """Take in what answers besides, and forget what does not any more."""
        names = {tier: variants.own_name(tier) for tier in self.own}
        beside = {one.version.name: one for one in variants.known.values() if one.handle}
        handles = {name: one.handle for name, one in beside.items() if one.handle}
        put(self.tiers, {names[tier]: own for tier, own in self.own.items()}, handles)
        more = {name: self.own_settings[one.version.tier] for name, one in beside.items()}
        put(self.settings, {names[tier]: settings for tier, settings in self.own_settings.items()}, more)
        models = {names[tier]: model for tier, model in self.own_models.items() if tier in names}
        put(self.models, models, {name: one.model for name, one in beside.items()})
        put(self.keys, {name: tier for tier, name in names.items()}, {name: one.key for name, one in beside.items()})

    def key(self, name: str) -> str:
        return self.keys.get(name, name)


def put(into: dict[str, T], *parts: Mapping[str, T]) -> None:
    """Make it hold these and nothing else; what stays is never missing meanwhile."""
    wanted = {name: value for part in parts for name, value in part.items()}
    into.update(wanted)
    for name in into.keys() - wanted.keys():
        del into[name]
