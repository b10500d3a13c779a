"""The Ray Serve application, built here and nowhere else: `serve run deployments.app:build config=pocket`."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pkgutil import resolve_name
from threading import Thread
from typing import Any

from pydantic import BaseModel, ConfigDict
from ray import serve
from starlette.applications import Starlette

from deployments.daemon import Daemon
from deployments.endpoint.accounts import Accounts
from deployments.endpoint.doors.accept_all import accept_all
from deployments.endpoint.ingress import Ingress
from deployments.endpoint.reload import Reloader
from deployments.keys.access import serve_run_access, with_absolute_ledger
from deployments.keys.admission import Keys
from deployments.learning.kept.collector import Collector
from deployments.learning.lease import Lease
from deployments.learning.live import started_on
from deployments.learning.live.active_router import BundleWatcher
from deployments.learning.live.variant_keeper import VariantKeeper
from deployments.learning.live.variant_tiers import ServeApps, Variants
from deployments.learning.live.weights import root
from deployments.learning.shown_status import ShownStatus
from deployments.learning.started_process import StartedProcess
from deployments.ledger.held_time import Running
from deployments.ledger.ledger import Ledger
from deployments.monitoring.metrics import Metrics
from deployments.monitoring.telemetry import telemetry
from deployments.replicas import variant_apps
from deployments.replicas.adapter_files import Adapter, adapter_of
from deployments.replicas.adapters import board_of
from deployments.replicas.placement import DRAIN_LOOK_S, LOGS
from deployments.replicas.replica_log import write_to_file
from deployments.services import serve_service
from deployments.services.echo_service import EchoService
from deployments.services.remote_service import RemoteService
from deployments.services.service import Engine as ServiceEngine
from deployments.tiers import serve_tier
from deployments.tiers.check import check
from deployments.tiers.echo_tier import EchoTier
from deployments.tiers.fingerprints import ladder_fingerprints, service_fingerprints
from deployments.tiers.remote_tier import RemoteTier
from deployments.tiers.rung_tier import with_rungs
from deployments.tiers.tier import Engine
from deployments.tiers.token_counters import counters, special_tokens
from deployments.traffic.queue_exchange import QueueExchange, QueueReporter
from deployments.traffic.watched_tier import Watched
from router.config import Config, VllmTier, as_given, find_config, load_config
from router.decide.abilities import Abilities
from router.engine import Router, load_artefact
from router.engine_settings import NOTHING
from router.errors import BadConfig
from router.flywheel.variants import Version

log = logging.getLogger("stepdown")
COUNT_EVERY_S = 1.0  # replicas of tiers that may sleep

TIERS: dict[str, Engine] = {
    "echo": Engine(lambda settings, _handle, first_token_s, _late: EchoTier(settings, first_token_s)),
    "remote": Engine(lambda settings, _handle, first_token_s, _late: RemoteTier(settings, first_token_s)),
    "vllm": Engine(serve_tier.make, bind="deployments.replicas.vllm_tier:bind"),
}
"""every engine of a tier, by the name that settings give it"""

SERVICES: dict[str, ServiceEngine] = {
    "echo": ServiceEngine(lambda settings, _handle, _timeout_s: EchoService(settings)),
    "remote": ServiceEngine(lambda settings, _handle, timeout_s: RemoteService(settings, timeout_s)),
    "vllm": ServiceEngine(serve_service.make, bind="deployments.replicas.vllm_service:bind"),
}
"""every engine of a service"""


class Args(BaseModel):
    """The arguments of `serve run deployments.app:build`."""

    model_config = ConfigDict(extra="forbid")
    config: str = "pocket"
    """a YAML file, or the name of a shipped one"""


class ServedIngress(Ingress):
    """The ingress as Serve constructs it on a replica, from settings and handles.

    exchange: the handle of the QueueExchange, if there are several ingresses. adapters: rung -> the name of its adapter in its
    host's engine.
    """

    behind_ray = True

    def __init__(
        self,
        config: dict[str, Any],
        key_hash: str,
        insecure: bool,
        handles: dict[str, Any],
        file: str = "",
        exchange: Any = None,
        adapters: Mapping[str, str] = NOTHING,
        weights: Mapping[str, str] = NOTHING,
    ) -> None:
        write_to_file()
        settings, own = Config.model_validate(config), dict(weights)
        accounts = accounts_of(settings, key_hash, insecure, self.running)
        assert accounts.ledger
        timeout_s = settings.server.first_token_timeout_s
        hosts = {
            t.name: TIERS[t.engine].make(t, handles.get(t.name), timeout_s, partial(accounts.late, t.name))
            for t in settings.tiers
            if t.runs_on == t.name
        }
        tiers = with_rungs(settings, hosts, adapters)
        services = {s.name: SERVICES[s.engine].make(s, handles.get(s.name), timeout_s) for s in settings.services}
        make = routers(settings)
        router = make(started_on.placed(settings, own))
        accounts.models.update((router.fingerprints.get("models") or {}) | service_fingerprints(settings))
        super().__init__(router, tiers, accounts, settings.server.max_body_bytes, services)
        self.draining.told = replica_stops
        engine = accounts.ledger.engine
        self.variable = frozenset(tier.name for tier in settings.tiers if isinstance(tier, VllmTier))
        variants = self.variants_of(settings, own) if self.variable else None
        if variants:
            self.stand_beside(variants, VariantKeeper(variants, Lease(accounts.ledger.store.transact)))
        self.watcher = watcher = BundleWatcher(engine, router, make, self.answering.use, accounts.refresh, variants)
        self.renewed = accounts.refresh, watcher.prepare
        self.reloader = Reloader(file, router, make, self.use, *self.renewed) if file else None
        self.learning = ShownStatus(engine, settings)
        self.flywheel = StartedProcess(settings) if settings.learning.start == "auto" else None
        self.sleepers = settings.sleepers
        self.configured_tiers = settings.tiers
        balancer = self.answering.balancer
        self.reporter = (
            QueueReporter(exchange.report.remote, self.answering.lineups.counts, balancer.others) if exchange else None
        )

    def variants_of(self, settings: Config, own: Mapping[str, str]) -> Variants:
        """The tiers on other weights than the main application's. own: those that its deployments have."""
        accounts, timeout_s = self.accounts, settings.server.first_token_timeout_s
        assert accounts.ledger

        def handle(version: Version, tier: VllmTier) -> Watched:
            found = serve.get_deployment_handle(variant_apps.deployment_of(version), variant_apps.app_of(version))
            made = TIERS[tier.engine].make(tier, found, timeout_s, partial(accounts.late, tier.name))
            return self.answering.watched(made, alone=True)

        models = ladder_fingerprints(settings)["models"]
        configured = started_on.configured(settings)
        apps = ServeApps(settings.server.drain_s)
        return Variants(accounts.ledger.engine, settings, own, configured, root(settings), models, handle, apps)

    def use(self, router: Router) -> None:
        super().use(router)
        if self.flywheel:
            self.flywheel.use(router.config.model_copy(update={"tiers": self.configured_tiers}))

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async with super().lifespan(app):
            counting, learning, accepting = Daemon(self.count), Daemon(self.learn), Daemon(accept_all)
            learning.start()
            accepting.start()
            if self.sleepers:
                counting.start()
            if self.reporter:
                self.reporter.start()
            if self.flywheel:
                self.flywheel.start()
            gc.collect()
            gc.freeze()  # these objects live as long as the replica; to scan them again would stop all requests for 0.2 s
            try:
                yield
            finally:
                await accepting.stop()
                await counting.stop()
                await learning.stop()
                if self.reporter:
                    await self.reporter.stop()
                if self.flywheel:
                    await self.flywheel.close()

    async def count(self) -> None:
        """Keep up to date which tiers sleep: the choice of a tier must not wait to find out."""
        while True:
            await asyncio.gather(*map(self.running, self.sleepers), return_exceptions=True)
            await asyncio.sleep(COUNT_EVERY_S)

    async def learn(self) -> None:
        """Keep up to date what the tiers can do, as their replicas found it."""
        await asyncio.gather(*map(self.learn_of, self.tiers))

    async def learn_of(self, name: str) -> None:
        while True:
            self.router.abilities.report(name, await self.tiers[name].abilities())
            if none := self.router.abilities.no_chat():
                log.error("%s", none)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Serve calls it with a changed `user_config`: sections routing, escalation and delegation.

        Never raises: Serve would take the replica for ill, and start it again with the same settings.
        """
        configured = self.watcher.configured if self.watcher else self.router
        made = routers(configured.config, configured.abilities)
        reloader = self.reloader or Reloader("", configured, made, self.use, *self.renewed)
        with suppress(BadConfig):  # already in the log and on the status page
            await reloader.from_sections(user_config)
        self.reloader = reloader

    async def asked_s(self) -> float:
        """Seconds since a load balancer asked this replica whether it is ready; `stepdown serve` wants to know, when it stops."""
        return self.health.asked_s

    async def drain(self, delay_s: float) -> None:
        """`stepdown serve` stops, and will end this replica after so many seconds."""
        self.draining.begin(delay_s)

    async def running(self, name: str) -> int:
        """How many replicas of a tier run, those on other weights too."""
        own = await self.tiers[name].replicas()
        return own + (await variant_apps.replicas_beside(name) if name in self.variable else 0)


def replica_stops() -> bool:
    """Whether Serve is stopping the replica that this is; it tells the application only when the last answer has ended."""
    import ray

    worker = ray._private.worker.global_worker  # Ray has no public way to it
    own = worker.actors.get(worker.actor_id) if worker.actor_id else None
    return bool(getattr(getattr(own, "_replica_impl", None), "_shutting_down", False))


def routers(settings: Config, abilities: Abilities | None = None) -> Callable[[Config], Router]:
    """Makes routers for other settings of the same ladder; what belongs to the ladder's models is read once.

    abilities: what is known already of what the tiers can do.
    """
    known = abilities or Abilities(settings.tiers)
    count, tokens, prints = counters(settings), special_tokens(settings), ladder_fingerprints(settings)

    def prints_of(config: Config) -> dict[str, Any]:
        """Of weights that were learned, they are others."""
        return prints if config.tiers == settings.tiers else ladder_fingerprints(config)

    def make(config: Config) -> Router:
        artefact = load_artefact(config)
        if artefact:
            from classifiers.fast.precompile import precompile  # late: loads scikit-learn, which not every ladder needs

            artefact.read_ahead("")  # loads a pretrained model, where one is needed, which takes seconds
            # Until it is compiled it decides too, ten times slower.
            Thread(target=precompile, args=(artefact.model, config.routing.artefact), name="compile", daemon=True).start()
        return Router(config, artefact, count, tokens, prints_of(config), known)

    return make


def accounts_of(config: Config, key_hash: str, insecure: bool, running: Running) -> Accounts:
    """Keys, ledger and metrics of one ingress replica."""
    ledger = Ledger(config.ledger)
    keys = Keys(ledger.engine, key_hash, insecure, config.server.replicas, learning=config.learning.own_key)
    tiers = {tier.name: tier for tier in config.tiers}
    made = Accounts(keys, ledger, Metrics(config.tiers), tiers=tiers, replicas_of=running)
    made.telemetry = telemetry()
    made.collector = Collector(config.learning, ledger.store, tiers, made.models)
    return made


def application(config: Config, key_hash: str = "", insecure: bool = False, file: str = "") -> serve.Application:
    """The Serve application: an ingress over the deployments of tiers and services, which start side by side. `check` the config
    first. Where a promoted artefact was made for learned weights, the tiers start on these.

    file: where the configuration is read again when it changes; empty: nowhere.
    """
    handles = {}
    adapters = {rung.name: adapter_of(rung) for rung in config.rungs}
    weights = started_on.weights(with_absolute_ledger(config))
    tiers = started_on.placed(config, weights).tiers
    engines = [
        *((TIERS[t.engine].bind, t, on_host(config, t.name, adapters)) for t in tiers if t.runs_on == t.name),
        *((SERVICES[s.engine].bind, s, {}) for s in config.services),
    ]
    for bind, settings, more in engines:
        if bind:  # imported only now: without vLLM, a ladder that does not need it still starts
            handles[settings.name] = resolve_name(bind)(settings, config.server.drain_s, **more)
    ingress = serve.deployment(
        name="ingress",
        num_replicas=config.server.replicas,
        max_ongoing_requests=1000,
        graceful_shutdown_timeout_s=config.server.drain_s,
        graceful_shutdown_wait_loop_s=DRAIN_LOOK_S,
        logging_config=LOGS,
        ray_actor_options={"num_cpus": 0},
    )(serve.ingress()(ServedIngress))
    exchange = serve.deployment(name="queue-exchange", num_replicas=1, ray_actor_options={"num_cpus": 0})(QueueExchange)
    others = exchange.bind() if config.server.replicas > 1 else None
    served = {name: adapter.name for name, adapter in adapters.items()}
    placed = with_absolute_ledger(config).model_dump(mode="json")
    return ingress.bind(placed, key_hash, insecure, handles, file, others, served, weights)


def on_host(config: Config, host: str, adapters: Mapping[str, Adapter]) -> dict[str, Any]:
    """What a host's replicas are told of the rungs on it; empty: there are none."""
    its = [adapter for name, adapter in adapters.items() if config.hosts[name] == host]
    return {"adapters": its, "board": str(board_of(root(config), host))} if its else {}


def placed_file(name: str) -> str:
    """The file behind a name, as replicas find it from another working folder."""
    return as_given(find_config(name))


def build(args: Args) -> serve.Application:
    """Typed builder for `serve run`. The key is STEPDOWN_API_KEY or a stored one; without any key it does not start."""
    config = load_config(args.config)
    check(config)
    return application(config, serve_run_access(config).key_hash, file=placed_file(args.config))
