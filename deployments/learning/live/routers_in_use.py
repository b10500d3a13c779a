"""The set of routers of one moment, and which of them decides on a conversation."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from deployments.learning.live.bundles import Bundle
from deployments.traffic.watched_tier import Watched
from router.decide.promises import Promises
from router.engine import Router

HASHED = 6  # bytes of a digest that say where a conversation stands: a fraction that a float holds exactly


@dataclass(frozen=True, slots=True)
class InUse:
    """A router, the digest of the artefact that it decides by, and the tiers on the weights that it was made for."""

    router: Router
    digest: str = ""
    """empty: it has none"""
    tiers: Mapping[str, Watched] = field(default_factory=dict)
    """those on other weights than the main application's"""
    models: Mapping[str, str] = field(default_factory=dict)
    """fingerprints of what these run"""
    names: Mapping[str, str] = field(default_factory=dict)
    """by what other ingresses know them, see `Variant.key`"""

    @property
    def promises(self) -> Promises:
        return self.router.flows.promises


@dataclass(frozen=True, slots=True)
class Routers:
    """All routers of one moment."""

    active: InUse
    canary: InUse | None = None
    share: float = 0.0
    """of the conversations that the canary decides on"""
    previous: InUse | None = None
    """decided before `active`, and is kept ready"""

    def of(self, conversation: str) -> InUse:
        """Who decides on this conversation: always the same one while the canary lasts."""
        canary = self.canary
        return canary if canary and position(canary.digest, conversation) < self.share else self.active

    def promises_of(self, digest: str) -> Promises | None:
        """The promises of this artefact; None: it is no longer in use."""
        return next((one.promises for one in self.known if one.digest == digest), None)

    @property
    def known(self) -> tuple[InUse, ...]:
        return tuple(one for one in (self.active, self.canary, self.previous) if one)


def position(canary: str, conversation: str) -> float:
    """Where a conversation stands in [0, 1), drawn anew for each canary, so that it is not always the same ones that try."""
    drawn = hashlib.sha256(f"{canary}\0{conversation}".encode("utf-8", "replace")).digest()[:HASHED]
    return int.from_bytes(drawn) / float(256**HASHED)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to decide, by artefacts' digests; empty: the configured one."""

    active: str = ""
    canary: str | None = None
    share: float = 0.0
    previous: str | None = None
    ignored: str = ""
    """why what was promoted does not count; empty: it does"""


def wanted(found: Mapping[str, Bundle], configured: str) -> Wanted:
    """What the slots say. configured: digest of the artefact that the configuration names now.

    Who configures another artefact than the one that a promotion replaced has the last word.
    """
    stale = [
        bundle.slot for bundle in found.values() if bundle.digest and bundle.over != configured and bundle.slot != "previous"
    ]
    ignored = f"the configured artefact was changed afterwards, so it decides: {', '.join(sorted(stale))}" if stale else ""
    valid = {slot: bundle for slot, bundle in found.items() if bundle.over == configured}
    active = valid["promoted"].digest if "promoted" in valid else ""
    canary, previous = valid.get("canary"), valid.get("previous")
    tried = canary if canary and canary.digest != active else None
    share = tried.share if tried else 0.0
    return Wanted(active, tried.digest if tried else None, share, previous.digest if previous else None, ignored)
