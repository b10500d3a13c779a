"""Keeps an ingress's routers as the database says: of the configured artefact or a promoted one, and a canary's beside it.

Every ingress reads the `bundles` every two seconds, builds new routers beside its event loop, and puts a whole set in use with
one assignment; a request under way keeps the router that decided on it. What cannot be loaded is logged and shown on
/v1/status, and what decided before stays. While the database does not answer, nothing changes.

An artefact that was made for other weights than the main application's is used once these answer too (variant_tiers.py): router
and tiers change together.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from deployments.daemon import Daemon
from deployments.learning.live import bundles
from deployments.learning.live.bundles import Bundle
from deployments.learning.live.model_store import cache, digest_of, fetch, tidy
from deployments.learning.live.routers_in_use import InUse, Routers, wanted
from deployments.learning.live.variant_tiers import Variants
from deployments.learning.live.variants_wanted import Configured, Weights
from deployments.learning.live.weights_used import settings_on, weights_of
from deployments.ledger.database import driver_message
from router.config import Config
from router.decide.promises import Promises
from router.engine import Router
from router.errors import BadConfig, BadInput

log = logging.getLogger("stepdown")
LOOK_EVERY_S = 2.0
CONFIGURED = "configured"  # in place of a digest: the configured artefact, where the main application has other weights than its
RETRY_S = 60.0  # until what could not be loaded is tried again


@dataclass(slots=True)
class Built:
    """Routers of stored artefacts, under the other settings of one configured router."""

    base: InUse
    """of the configured artefact"""
    weights: Weights = field(default_factory=dict)
    """for which that artefact was made"""
    routers: dict[str, InUse] = field(default_factory=dict)
    """by digest"""
    failed: dict[str, tuple[float, str]] = field(default_factory=dict)
    """digest -> until when it is not tried again, and why it could not be loaded"""


class NotLoaded(Exception):
    """An artefact cannot be used; the message says why. Stays inside this module."""


class NotYet(NotLoaded):
    """Its weights do not answer yet; it is looked at again at once."""


class BundleWatcher:
    """Keeps the routers of one ingress as the database says.

    router: the configured one, over the weights that the main application has. make: builds a router, as the Reloader's does.
    use: puts a set of routers in use. refresh: tells new promises what all processes' audits have found. variants: the tiers on
    other weights; None: there are none, and no artefact that needs some is used.
    """

    def __init__(
        self,
        engine: Engine,
        router: Router,
        make: Callable[[Config], Router],
        use: Callable[[Routers], None],
        refresh: Callable[[Promises], None] = lambda promises: None,
        variants: Variants | None = None,
    ) -> None:
        self.engine, self.make, self.use, self.refresh, self.variants = engine, make, use, refresh, variants
        self.built = Built(InUse(router))
        self.routers = Routers(self.built.base)
        self.prepared: tuple[Built, Routers] | None = None
        """for a reload of the configuration that is about to be used"""
        self.found: dict[str, Bundle] = {}
        """the slots, as they were read last"""
        self.not_loaded: dict[str, str] = {}
        """slot -> why"""
        self.ignored = ""
        self.outage = ""
        self.one_at_a_time = threading.Lock()
        self.watching = Daemon(self.watch)

    @property
    def configured(self) -> Router:
        """The router of the configuration alone."""
        return self.built.base.router

    @property
    def promises(self) -> tuple[Promises, ...]:
        """Of all routers that may decide, now or after a rollback."""
        return tuple({id(one): one.promises for one in (*self.routers.known, self.built.base)}.values())

    # -- watching ----------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Look once. To be awaited before the first request, so that a restart begins with what was promoted."""
        self.built = await asyncio.to_thread(identified, self.configured)
        self.put(Routers(self.built.base))
        await self.look()
        self.watching.start()

    async def close(self) -> None:
        await self.watching.stop()

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        built = self.built
        routers = await asyncio.to_thread(self.current, built)
        if self.built is built and routers != self.routers:  # else the configuration was reloaded meanwhile
            self.put(routers)

    def put(self, routers: Routers) -> None:
        if routers.active.digest != self.routers.active.digest:
            log.warning("auto is now decided by the artefact %s", routers.active.digest[:12] or "(none)")
        self.routers = routers
        self.use(routers)

    def current(self, built: Built) -> Routers:
        """What is to decide now. Blocks; never raises."""
        with self.one_at_a_time:
            try:
                with self.engine.connect() as connection:
                    self.found = bundles.read(connection)
            except SQLAlchemyError as error:
                if not self.outage:
                    log.warning("promotions are not seen while the ledger's database is down: %s", driver_message(error))
                self.outage = driver_message(error)
                return self.routers
            self.outage = ""
            return self.assembled(built)

    # -- building ----------------------------------------------------------------------------------------------------------

    def assembled(self, built: Built) -> Routers:
        """The routers that the slots ask for; those before, where the one for everybody cannot be loaded."""
        asked = wanted(self.found, built.base.digest)
        if asked.ignored != self.ignored:
            log.warning("learned artefacts: %s", asked.ignored or "what was promoted decides again")
        self.ignored = asked.ignored
        why: dict[str, str] = {}
        active = self.loaded(asked.active, built, "promoted", why)
        canary = self.loaded(asked.canary, built, "canary", why)
        previous = self.loaded(asked.previous, built, "previous", why)
        for slot, reason in why.items():
            if self.not_loaded.get(slot) != reason:
                how = logging.WARNING if reason.endswith(NOT_YET) else logging.ERROR
                log.log(how, "the learned artefact in the slot %s is not used: %s", slot, reason)
        self.not_loaded = why
        if active is None:
            active = self.routers.active if self.built is built else built.base
        self.forget(built)
        return Routers(active, canary, asked.share if canary else 0.0, previous)

    def loaded(self, digest: str | None, built: Built, slot: str, why: dict[str, str]) -> InUse | None:
        """None where there is nothing to load, or it cannot be loaded; then `why` says so."""
        if digest is None:
            return None
        if digest in ("", built.base.digest):
            if self.own_fit(built):
                return built.base
            digest = CONFIGURED
        until, reason = built.failed.get(digest, (0.0, ""))
        if digest not in built.routers and time.monotonic() >= until:
            try:
                built.routers[digest], reason = self.load(digest, built.base), ""
            except NotLoaded as error:
                reason = str(error)
                built.failed[digest] = time.monotonic() + (0.0 if isinstance(error, NotYet) else RETRY_S), reason
        if digest in built.routers:
            return built.routers[digest]
        why[slot] = reason
        return None

    def own_fit(self, built: Built) -> bool:
        """Whether the main application has the weights that the configured artefact was made for."""
        return self.variants is None or not self.variants.beside(built.weights)

    def load(self, digest: str, base: InUse) -> InUse:
        """The router of a stored artefact, with the tiers on its weights. Raises NotLoaded."""
        try:
            config = base.router.config
            artefact, own_digest = config.routing.artefact, base.digest
            if digest != CONFIGURED:
                folder = fetch(self.engine, digest, cache())
                tidy(folder.parent, [bundle.digest for bundle in self.found.values()])
                artefact, own_digest = str(folder), digest
            routing = config.routing.model_copy(update={"artefact": artefact})
            made = self.made(config.model_copy(update={"routing": routing}), own_digest)
        except NotLoaded:
            raise
        except SQLAlchemyError as error:
            raise NotLoaded(driver_message(error)) from error
        except Exception as error:  # whatever an artefact does, the routers in use go on
            raise NotLoaded(str(error) or type(error).__name__) from error
        made.promises.inherit(base.promises)  # so that all routers share what audits found
        self.refresh(made.promises)
        return made

    def made(self, config: Config, digest: str) -> InUse:
        """The router of a configuration on the weights that its artefact names. Raises NotLoaded, and what an artefact does."""
        weights = weights_of(config.routing.artefact) if config.routing.artefact else {}
        variants = self.variants
        if variants is None:
            if weights:
                raise NotLoaded(f"it was made for learned weights of {', '.join(sorted(weights))}, and this server runs none")
            return InUse(self.make(config), digest)
        config = settings_on(config.model_copy(update={"tiers": variants.config.tiers}), weights, variants.store)
        beside = variants.beside(weights)
        for version in beside.values():
            if variants.find(version) is None:
                raise NotYet(f"{version.name}: {variants.why_not(version)}, {NOT_YET}")
        router = self.make(config)
        up = {tier: variant for tier, version in beside.items() if (variant := variants.find(version)) and variant.handle}
        if up.keys() != beside.keys():  # one went away while the router was made
            raise NotYet(f"{', '.join(sorted(beside.keys() - up.keys()))}: it has just stopped answering, {NOT_YET}")
        tiers = {tier: one.handle for tier, one in up.items() if one.handle}
        models, names = {tier: one.model for tier, one in up.items()}, {tier: one.key for tier, one in up.items()}
        return InUse(router, digest, tiers, models, names)

    def forget(self, built: Built) -> None:
        """Drop the routers of artefacts that are in no slot any more."""
        digests = {CONFIGURED, *(bundle.digest for bundle in self.found.values())}
        for kept in (built.routers, built.failed):
            for digest in kept.keys() - digests:
                del kept[digest]

    # -- reloads of the configuration --------------------------------------------------------------------------------------

    def prepare(self, router: Router) -> None:
        """Build the promoted artefact's router and the canary's with a new configuration's settings. Blocks; for a thread.

        Raises BadConfig where the one that decides cannot be used with them; nothing is changed then.
        """
        built = identified(router)
        with self.one_at_a_time:
            deciding, before = self.routers.active.digest, self.not_loaded
            routers = self.assembled(built)
            promoted = self.found.get("promoted")
            if promoted and (why := self.not_loaded.get("promoted")) and promoted.digest == deciding:
                self.not_loaded = before
                raise BadConfig(f"the promoted artefact {deciding[:12]} cannot be used with these settings: {why}; {MEND}")
            self.prepared = built, routers

    def rebase(self, router: Router) -> None:
        """Use the configuration that was prepared."""
        prepared, self.prepared = self.prepared, None
        if prepared is None or prepared[0].base.router is not router:
            prepared = Built(InUse(router)), Routers(InUse(router))
        self.built, routers = prepared
        if self.variants:
            self.variants.configured = Configured(self.built.base.digest, self.built.weights)
        self.put(routers)

    # -- status ------------------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Which artefacts decide here, and why others do not."""
        shown: dict[str, Any] = {"active": self.routers.active.digest, "configured": self.built.base.digest}
        canary = self.routers.canary
        shown |= {"canary": canary.digest, "share": self.routers.share} if canary else {}
        shown |= self.variants.shown() if self.variants else {}
        said = {"not_loaded": self.not_loaded, "ignored": self.ignored, "database": self.outage}
        return shown | {name: value for name, value in said.items() if value}


NOT_YET = "what decided before goes on until it answers"
MEND = "take it back with `stepdown flywheel rollback`, or correct the settings"


def identified(router: Router) -> Built:
    """The configured router with its artefact's digest and weights. Raises BadConfig where the artefact cannot be read."""
    folder = router.config.routing.artefact
    try:
        return Built(InUse(router, digest_of(folder)), weights_of(folder)) if folder else Built(InUse(router))
    except BadInput as error:
        raise BadConfig(f"routing.artefact: {error}") from None
