"""The tiers on other weights than the main application's, as one ingress sees them: which are needed, which answer, and how.

Every ingress looks at the database and at Serve every few seconds, and makes a handle for each application that is needed. One
counts as up once it has a running replica and has answered a request of ours. A handle is kept while its weights are needed, so
that whatever decides by it finds it again after a rollback. Starting and stopping the applications is variant_keeper.py's.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from deployments.daemon import Daemon
from deployments.learning.live.variants_wanted import Configured, Wanted, Weights, wanted
from deployments.learning.live.weights import find
from deployments.learning.live.weights_used import on, versions_of
from deployments.ledger.database import driver_message
from deployments.replicas import variant_apps
from deployments.replicas.variant_apps import AppState, app_of
from deployments.tiers.fingerprints import model
from deployments.traffic.watched_tier import Watched
from router.config import Config, VllmTier
from router.errors import BadInput, RequestFailed
from router.flywheel.variants import Version, Versions, variant

log = logging.getLogger("stepdown")
LOOK_EVERY_S = 2.0
PROBE_S = 20.0  # for an answer to our first request
KEEP_S = 60.0  # a handle is kept after its weights are not needed any more: requests may still hold it
LATE_S = 1_800.0  # after which weights that do not answer are not waited for any more
PROBE: Mapping[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1, "temperature": 0}
UP = "up"


class Busy(NamedTuple):
    """Replicas that run, and this ingress's calls there."""

    replicas: int = 0
    running: int = 0
    waiting: int = 0


class Apps(Protocol):
    """The applications of Ray Serve, or a test's."""

    def states(self) -> Mapping[str, AppState]:
        """By name. Blocks; raises whatever Serve raises."""

    def deploy(self, version: Version, settings: VllmTier) -> None:
        """Blocks until Serve has taken it."""

    def delete(self, app: str) -> None: ...


@dataclass(frozen=True, slots=True)
class ServeApps:
    """Ray Serve's. drain_s: seconds that running answers get when one is deleted."""

    drain_s: float

    def states(self) -> Mapping[str, AppState]:
        return variant_apps.apps()

    def deploy(self, version: Version, settings: VllmTier) -> None:
        variant_apps.deploy(version, settings, self.drain_s)

    def delete(self, app: str) -> None:
        variant_apps.delete(app)


@dataclass(slots=True)
class Variant:
    """One tier on certain weights, beside the main application."""

    version: Version
    settings: VllmTier | None = None
    """None: its weights cannot be used"""
    model: str = ""
    """fingerprint"""
    handle: Watched | None = None
    state: str = "not started yet"
    """`up`, or why it does not answer"""
    replicas: int = 0
    gone: bool = False
    """it will not answer unless somebody mends it"""
    since_s: float = field(default_factory=time.monotonic)
    """when it was needed first"""
    needed_s: float = field(default_factory=time.monotonic)
    """when it was needed last"""

    @property
    def up(self) -> bool:
        return self.state == UP

    @property
    def key(self) -> str:
        """By what ingresses tell each other how busy it is. A tier's plain name is the main application's."""
        return f"{self.version.tier}@{self.version.short}"

    def shown(self) -> dict[str, Any]:
        return {"app": app_of(self.version), "state": self.state, "replicas": self.replicas, "weights": self.version.digest}


class Variants:
    """Those of one ingress.

    config: as configured. own: tier -> digest of the weights that the main application's deployments have; a tier that is
    missing has the configured ones. models: tier -> fingerprint of what they have; configured_models: of the configured models.
    make: a handle of an application's replicas.
    """

    def __init__(
        self,
        engine: Engine,
        config: Config,
        own: Weights,
        configured: Configured,
        store: Path,
        configured_models: Mapping[str, str],
        make: Callable[[Version, VllmTier], Watched],
        apps: Apps,
    ) -> None:
        self.engine, self.config, self.own, self.configured, self.store = engine, config, dict(own), configured, store
        self.configured_models, self.make, self.apps = configured_models, make, apps
        self.tiers = {tier.name: tier for tier in config.tiers}
        self.served = frozenset(Version(tier.name, self.own.get(tier.name, "")) for tier in config.tiers)
        """what the main application serves"""
        self.wanted = Wanted()
        self.versions = Versions.of(configured_models)
        self.states: Mapping[str, AppState] | None = None
        """Serve's applications at the last look; None: they could not be seen"""
        self.known: dict[Version, Variant] = {}
        self.weights: dict[str, Weights] = {}
        """by artefact"""
        self.trouble = ""
        self.looked = False
        self.watching = Daemon(self.watch)

    # -- for who uses them: fast ------------------------------------------------------------------------------------------

    @property
    def needed(self) -> frozenset[Version]:
        """What has to run beside the main application."""
        return self.wanted.up - self.served

    def find(self, version: Version) -> Variant | None:
        """A variant that answers; None: it does not yet."""
        found = self.known.get(version)
        return found if found and found.up and found.handle else None

    def named(self, name: str) -> Variant | None:
        """The same by its name."""
        return next((one for one in self.known.values() if one.version.name == name and one.up), None)

    def why_not(self, version: Version) -> str:
        """Why it does not answer."""
        found = self.known.get(version)
        return found.state if found else "not started yet"

    def beside(self, weights: Weights) -> dict[str, Version]:
        """tier -> the variant that a bundle made for these weights needs; the main application has the rest."""
        versions = [Version(tier.name, weights.get(tier.name, "")) for tier in self.config.tiers]
        return {version.tier: version for version in versions if version not in self.served}

    def own_name(self, tier: str) -> str:
        """The name of what the main application's deployment of a tier runs."""
        return variant(tier, self.own.get(tier, ""))

    def waits_for(self) -> str:
        """Which weights are compared but do not answer yet; empty: nothing is waited for."""
        for version in sorted(self.needed):
            found = self.known.get(version)
            if version.name in self.wanted.asked and not (found and (found.up or found.gone)):
                return f"{version.name} is {self.why_not(version)}"
        return ""

    def lost(self) -> dict[str, str]:
        """Names of weights that are compared and will not answer unless somebody mends them, each with the reason."""
        needed = [found for version in self.needed if (found := self.known.get(version))]
        return {one.version.name: one.state for one in needed if one.gone and not one.up}

    def busy(self) -> dict[str, Busy]:
        """By tier, of all its variants together."""
        found: dict[str, Busy] = {}
        for one in self.known.values():
            before, handle = found.get(one.version.tier, Busy()), one.handle
            running, waiting = (handle.running, handle.waiting) if handle else (0, 0)
            added = Busy(before.replicas + one.replicas, before.running + running, before.waiting + waiting)
            found[one.version.tier] = added
        return found

    def shown(self) -> dict[str, Any]:
        """For the status page."""
        found = {one.version.name: one.shown() for one in self.known.values() if one.version in self.needed}
        said = {"variants": found, "own_weights": self.own, "variants_trouble": self.trouble}
        return {name: value for name, value in said.items() if value}

    # -- looking ------------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Look once, then now and then. To be awaited before the first request."""
        await self.look()
        self.watching.start()

    async def close(self) -> None:
        await self.watching.stop()
        for one in self.known.values():
            if one.handle:
                await one.handle.close()

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self.look()
            except Exception:
                log.exception("learned weights are looked at again after a fault")

    async def look(self) -> None:
        """Never raises what the database or Serve raise."""
        await asyncio.to_thread(self.read)
        if self.needed or self.known:
            await asyncio.to_thread(self.see)
        now_s = time.monotonic()
        for version in self.needed:
            self.known.setdefault(version, Variant(version)).needed_s = now_s
        await asyncio.gather(*map(self.follow, list(self.known.values())))
        for version, one in list(self.known.items()):
            if now_s - one.needed_s > KEEP_S:
                del self.known[version]
                if one.handle:
                    await one.handle.close()
        self.looked = True

    def read(self) -> None:
        """What the database asks for; what it asked for before, where it does not answer. Blocks."""
        try:
            with self.engine.connect() as connection:
                found = wanted(connection, self.config, self.configured, self.weights)
                if found != self.wanted or not self.looked:
                    self.versions = versions_of(connection, self.config, self.configured_models, self.store)
        except SQLAlchemyError as error:
            self.trouble = driver_message(error)
            return
        if found.unread != self.wanted.unread:
            log.error("the weights of learned artefacts cannot be read: %s", "; ".join(found.unread) or "now they can")
        self.wanted, self.trouble = found, "; ".join(found.unread)

    def see(self) -> None:
        """What Serve says. Blocks."""
        try:
            self.states = self.apps.states()
        except Exception as error:  # noqa: BLE001 Ray has many kinds, and whichever it is, it is asked again
            self.states, self.trouble = None, f"Serve does not say what runs ({type(error).__name__})"

    async def follow(self, one: Variant) -> None:
        """Note how a variant is, and try it once it has a replica."""
        if one.settings is None:
            await asyncio.to_thread(self.place, one)
        if one.settings is None or self.states is None:
            return
        found = self.states.get(app_of(one.version))
        one.replicas = found.replicas if found else 0
        was, one.gone = one.up, False
        if found is None or found.status == "DELETING":
            one.state = "not started yet"
        elif found.status == "DEPLOY_FAILED":
            one.state, one.gone = f"it does not start: {found.message}"[:500], True
        elif not one.replicas and not (one.settings.sleeps and found.status == "RUNNING"):
            one.state = "starting"
        elif not was:
            await self.probe(one)
        one.gone |= not one.up and time.monotonic() - one.since_s > LATE_S
        if one.up and not was:
            log.warning("%s answers", one.version.name)

    def place(self, one: Variant) -> None:
        """Find its weights. Blocks."""
        tier = self.tiers[one.version.tier]
        try:
            settings = on(tier, find(one.version.digest, self.store)) if one.version.digest else tier
            assert isinstance(settings, VllmTier)
            one.model, one.settings, one.gone = model(settings), settings, False
        except (BadInput, OSError) as error:
            if one.state != str(error):
                log.error("learned weights cannot be used: %s", error)
            one.state, one.gone = str(error), True

    async def probe(self, one: Variant) -> None:
        """Ask it one request. A refusal is an answer too."""
        assert one.settings
        try:
            if one.handle is None:
                one.handle = self.make(one.version, one.settings)
            async with asyncio.timeout(PROBE_S):
                await one.handle.tier.complete("chat/completions", {**PROBE, "model": one.version.tier})
            one.state = UP
        except RequestFailed as error:
            one.state = UP if error.status < 500 and error.status != 429 else f"it does not answer: {error}"[:500]
        except Exception as error:  # noqa: BLE001 whatever it is, it is tried again
            one.state = f"it does not answer ({type(error).__name__})"
