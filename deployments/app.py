"""The one place that tells Ray Serve about anything: `serve run deployments.app:build config=pocket`."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from threading import Thread
from typing import Any

from pydantic import BaseModel, ConfigDict
from ray import get_runtime_context, serve
from starlette.applications import Starlette

from deployments.daemon import Daemon
from deployments.endpoint.accounts import Accounts
from deployments.endpoint.ingress import Ingress
from deployments.endpoint.reload import Reloader
from deployments.keys.access import serve_run_access, with_absolute_ledger
from deployments.keys.admission import Keys
from deployments.lane.client import Lane
from deployments.ledger.ledger import Ledger
from deployments.monitoring.metrics import Metrics
from deployments.replicas.placement import DRAIN_LOOK_S, LOGS, affine
from deployments.replicas.replica_count import running_replicas
from deployments.tiers import fingerprints
from deployments.tiers.echo_tier import EchoTier
from deployments.tiers.remote_tier import RemoteTier
from deployments.tiers.serve_tier import Manner, ServeTier
from deployments.tiers.tier import Tier
from deployments.tiers.token_counters import counters, special
from deployments.traffic.queue_exchange import Meeting, Teller
from router.config import Config, VllmTier, find_config, load_config
from router.engine import Router, load_artefact
from router.errors import BadConfig

COUNT_EVERY_S = 1.0  # replicas of tiers that may have none


class Args(BaseModel):
    """What `serve run deployments.app:build` takes."""

    model_config = ConfigDict(extra="forbid")
    config: str = "pocket"
    """a YAML file, or the name of a shipped one"""


def make_echo(tier: Any, handle: Any, timeout_s: float) -> Tier:
    return EchoTier(tier)


def make_remote(tier: Any, handle: Any, timeout_s: float) -> Tier:
    return RemoteTier(tier)


def make_vllm(tier: Any, handle: Any, timeout_s: float) -> Tier:
    running = running_replicas(handle.app_name, handle.deployment_name)
    return ServeTier(tier.name, handle, running, manner(tier, timeout_s), lane=lane_to(tier, handle))


def lane_to(tier: VllmTier, handle: Any) -> Lane | None:
    """Where there is always one replica, nothing is to be chosen, counted for scaling or woken."""
    if tier.max_replicas is not None or tier.replicas != 1:
        return None
    ask = handle.options(stream=False, method_name="lane").remote
    return Lane(ask, get_runtime_context().get_node_id(), tier.max_ongoing)


def manner(tier: VllmTier, timeout_s: float) -> Manner:
    waits_s = tier.scaling.cold_start_wait_s if tier.scaling.when_cold == "degrade" else float("inf")
    how = tier.affinity if affine(tier) else "none"
    return Manner(timeout_s, how, tier.affinity_chars, tier.sleeps, waits_s if tier.sleeps else 0.0)


TIERS: dict[str, Callable[[Any, Any, float], Tier]] = {"echo": make_echo, "remote": make_remote, "vllm": make_vllm}


class ServedIngress(Ingress):
    """The ingress as Serve constructs it: from settings and handles, on the replica.

    meeting: the handle by which several ingresses hear of each other.
    """

    def __init__(
        self, config: dict[str, Any], key_hash: str, insecure: bool, handles: dict[str, Any], file: str = "", meeting: Any = None
    ) -> None:
        settings = Config.model_validate(config)
        timeout_s = settings.server.first_token_timeout_s
        tiers = {t.name: TIERS[t.engine](t, handles.get(t.name), timeout_s) for t in settings.tiers}
        make = routers(settings)
        router = make(settings)
        super().__init__(router, tiers, accounts_of(settings, key_hash, insecure), settings.server.max_body_bytes)
        for name, tier in tiers.items():
            if isinstance(tier, ServeTier):
                tier.late = partial(self.accounts.late, name)
        self.accounts.replicas_of = self.running
        self.reloader = Reloader(file, router, make, self.use) if file else None
        self.sleepers = settings.sleepers
        balancer = self.answering.balancer
        self.teller = Teller(meeting.tell.remote, balancer.counts, balancer.news) if meeting else None

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async with super().lifespan(app):
            counting = Daemon(self.count)
            if self.sleepers:
                counting.start()
            if self.teller:
                self.teller.start()
            gc.collect()
            gc.freeze()  # what lives as long as the replica: looking through it again would stop all requests for 0.2 s
            try:
                yield
            finally:
                await counting.stop()
                if self.teller:
                    await self.teller.close()

    async def count(self) -> None:
        """Whether tiers that may sleep do: the choice of a tier must not wait to find out."""
        while True:
            await asyncio.gather(*(self.tiers[name].replicas() for name in self.sleepers), return_exceptions=True)
            await asyncio.sleep(COUNT_EVERY_S)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Serve calls it with a changed `user_config`: sections routing, escalation and delegation.

        Never raises: Serve would take a replica that refuses for one that is ill, and start it anew with the same settings.
        """
        reloader = self.reloader or Reloader("", self.router, routers(self.router.config), self.use)
        with suppress(BadConfig):  # told in the log and on the status page
            await reloader.from_sections(user_config)
        self.reloader = reloader

    async def running(self, name: str) -> int:
        return await self.tiers[name].replicas()


def routers(settings: Config) -> Callable[[Config], Router]:
    """Makes routers for other settings of the same ladder: what belongs to its models is read once."""
    count, names, prints = counters(settings), special(settings), fingerprints.of(settings)

    def make(config: Config) -> Router:
        artefact = load_artefact(config)
        if artefact:
            from classifiers.fast.precompile import precompile  # late: brings scikit-learn, which not every ladder needs

            artefact.read_ahead("")  # loads a pretrained model, where one is needed, which takes seconds
            # Until it is compiled it decides too, ten times slower.
            Thread(target=precompile, args=(artefact.model, config.routing.artefact), name="compile", daemon=True).start()
        return Router(config, artefact, count, names, prints)

    return make


def accounts_of(config: Config, key_hash: str, insecure: bool) -> Accounts:
    """Keys, ledger and metrics of one ingress replica."""
    ledger = Ledger(config.ledger)
    keys = Keys(ledger.engine, key_hash, insecure, config.server.replicas)
    return Accounts(keys, ledger, Metrics(config.tiers), tiers={tier.name: tier for tier in config.tiers})


def check(config: Config) -> None:
    """Everything that can stop the start, without starting. Raises BadConfig."""
    Router(config, load_artefact(config), counters(config))
    for tier in config.tiers:
        if tier.engine == "vllm" and tier.source.startswith("/") and not os.path.isdir(tier.source):
            raise BadConfig(f"tiers.{tier.name}.source: no folder {tier.source}; give a hub id or a model's folder")


def application(config: Config, key_hash: str = "", insecure: bool = False, file: str = "") -> Any:
    """The Serve application: an ingress over the tiers' deployments, which start side by side. `check` the config first.

    file: where the configuration is read again when it changes; empty: nowhere.
    """
    handles = {}
    for tier in config.tiers:
        if tier.engine == "vllm":
            from deployments.replicas.vllm_tier import bind  # only here: fails where vLLM is not installed

            handles[tier.name] = bind(tier, config.server.drain_s)
    options = {
        "name": "ingress",
        "num_replicas": config.server.replicas,
        "max_ongoing_requests": 1000,
        "graceful_shutdown_timeout_s": config.server.drain_s,
        "graceful_shutdown_wait_loop_s": DRAIN_LOOK_S,
        "logging_config": LOGS,
        "ray_actor_options": {"num_cpus": 0},
    }
    deployment = serve.deployment(serve.ingress()(ServedIngress), **options)
    meeting = bind_meeting() if config.server.replicas > 1 else None
    return deployment.bind(with_absolute_ledger(config).model_dump(mode="json"), key_hash, insecure, handles, file, meeting)


def bind_meeting() -> Any:
    options: dict[str, Any] = {"name": "meeting", "num_replicas": 1, "ray_actor_options": {"num_cpus": 0}}
    return serve.deployment(Meeting, **options).bind()


def placed_file(name: str) -> str:
    """The file behind a name, as replicas find it from another working folder."""
    return str(find_config(name).resolve())


def build(args: Args) -> Any:
    """Typed builder for `serve run`. The key is STEPDOWN_API_KEY, or one that was made before: without any it does not start."""
    config = load_config(args.config)
    check(config)
    return application(config, serve_run_access(config).key_hash, file=placed_file(args.config))
