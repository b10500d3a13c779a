"""Keeps an ingress's routers as the database says: of the configured artefact or a promoted one, and a canary's beside it.

Every ingress reads the `bundles` every two seconds, builds new routers beside its event loop, and puts a whole set in use with
one assignment; a request under way keeps the router that decided on it. What cannot be loaded is logged and shown on
/v1/status, and what decided before stays. While the database does not answer, nothing changes.
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
from deployments.ledger.database import driver_message
from router.config import Config
from router.decide.promises import Promises
from router.engine import Router
from router.errors import BadConfig, BadInput

log = logging.getLogger("stepdown")
LOOK_EVERY_S = 2.0
RETRY_S = 60.0  # until what could not be loaded is tried again


@dataclass(slots=True)
class Built:
    """Routers of stored artefacts, under the other settings of one configured router."""

    base: InUse
    """of the configured artefact"""
    routers: dict[str, InUse] = field(default_factory=dict)
    """by digest"""
    failed: dict[str, tuple[float, str]] = field(default_factory=dict)
    """digest -> until when it is not tried again, and why it could not be loaded"""


class NotLoaded(Exception):
    """An artefact cannot be used; the message says why. Stays inside this module."""


class BundleWatcher:
    """Keeps the routers of one ingress as the database says.

    router: the configured one. make: builds a router, as the Reloader's does. use: puts a set of routers in use. refresh: tells
    new promises what all processes' audits have found.
    """

    def __init__(
        self,
        engine: Engine,
        router: Router,
        make: Callable[[Config], Router],
        use: Callable[[Routers], None],
        refresh: Callable[[Promises], None] = lambda promises: None,
    ) -> None:
        self.engine, self.make, self.use, self.refresh = engine, make, use, refresh
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
        self.built = Built(await asyncio.to_thread(identified, self.configured))
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
                log.error("the learned artefact in the slot %s is not used: %s", slot, reason)
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
            return built.base
        until, reason = built.failed.get(digest, (0.0, ""))
        if digest not in built.routers and time.monotonic() >= until:
            try:
                built.routers[digest], reason = self.load(digest, built.base), ""
            except NotLoaded as error:
                reason = str(error)
                built.failed[digest] = time.monotonic() + RETRY_S, reason
        if digest in built.routers:
            return built.routers[digest]
        why[slot] = reason
        return None

    def load(self, digest: str, base: InUse) -> InUse:
        """The router of a stored artefact. Raises NotLoaded."""
        try:
            folder = fetch(self.engine, digest, cache())
            tidy(folder.parent, [bundle.digest for bundle in self.found.values()])
            config = base.router.config
            routing = config.routing.model_copy(update={"artefact": str(folder)})
            router = self.make(config.model_copy(update={"routing": routing}))
        except SQLAlchemyError as error:
            raise NotLoaded(driver_message(error)) from error
        except Exception as error:  # whatever an artefact does, the routers in use go on
            raise NotLoaded(str(error) or type(error).__name__) from error
        router.flows.promises.inherit(base.promises)  # so that all routers share what audits found
        self.refresh(router.flows.promises)
        return InUse(router, digest)

    def forget(self, built: Built) -> None:
        """Drop the routers of artefacts that are in no slot any more."""
        digests = {bundle.digest for bundle in self.found.values()}
        for kept in (built.routers, built.failed):
            for digest in kept.keys() - digests:
                del kept[digest]

    # -- reloads of the configuration --------------------------------------------------------------------------------------

    def prepare(self, router: Router) -> None:
        """Build the promoted artefact's router and the canary's with a new configuration's settings. Blocks; for a thread.

        Raises BadConfig where the one that decides cannot be used with them; nothing is changed then.
        """
        built = Built(identified(router))
        with self.one_at_a_time:
            deciding, before = self.routers.active.digest, self.not_loaded
            routers = self.assembled(built)
            if (why := self.not_loaded.get("promoted")) and self.found["promoted"].digest == deciding:
                self.not_loaded = before
                raise BadConfig(f"the promoted artefact {deciding[:12]} cannot be used with these settings: {why}; {MEND}")
            self.prepared = built, routers

    def rebase(self, router: Router) -> None:
        """Use the configuration that was prepared."""
        prepared, self.prepared = self.prepared, None
        if prepared is None or prepared[0].base.router is not router:
            prepared = Built(InUse(router)), Routers(InUse(router))
        self.built, routers = prepared
        self.put(routers)

    # -- status ------------------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Which artefacts decide here, and why others do not."""
        shown: dict[str, Any] = {"active": self.routers.active.digest, "configured": self.built.base.digest}
        canary = self.routers.canary
        shown |= {"canary": canary.digest, "share": self.routers.share} if canary else {}
        said = {"not_loaded": self.not_loaded, "ignored": self.ignored, "database": self.outage}
        return shown | {name: value for name, value in said.items() if value}


MEND = "take it back with `stepdown flywheel rollback`, or correct the settings"


def identified(router: Router) -> InUse:
    """The configured router with its artefact's digest. Raises BadConfig where the artefact cannot be read."""
    folder = router.config.routing.artefact
    try:
        return InUse(router, digest_of(folder) if folder else "")
    except BadInput as error:
        raise BadConfig(f"routing.artefact: {error}") from None
