"""The HTTP application. A plain class: Ray Serve calls `app` on each replica, tests call it without Ray."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route

from deployments.beside_loop import LARGE, by_size, check_room
from deployments.costs import routes as costs
from deployments.endpoint import deadline
from deployments.endpoint.accounts import Accounts, without_books
from deployments.endpoint.answering import Answering
from deployments.endpoint.doors.guard import Guard
from deployments.endpoint.doors.health import NOT_KEPT, Health
from deployments.endpoint.doors.pages import shared_with_pages
from deployments.endpoint.doors.paths import Paths
from deployments.endpoint.doors.readiness import Readiness
from deployments.endpoint.draining import Draining
from deployments.endpoint.framing import Framing
from deployments.endpoint.reload import Reloader
from deployments.endpoint.replies import decision_headers, decision_json, error_response
from deployments.endpoint.routes import openapi
from deployments.endpoint.routes.models import Models
from deployments.endpoint.routes.protocols import Protocols
from deployments.endpoint.services.routes import Services
from deployments.endpoint.spoken.kept_responses import InLedger
from deployments.endpoint.spoken.response_states import InMemory, ResponseStates
from deployments.ids import current
from deployments.learning.filling.filler import Filler
from deployments.learning.kept import completion_routes
from deployments.learning.live.active_router import BundleWatcher
from deployments.learning.live.routers_in_use import InUse, Routers
from deployments.learning.live.variant_keeper import VariantKeeper
from deployments.learning.live.variant_tiers import Busy, Variants
from deployments.learning.shown_status import ShownStatus
from deployments.services.service import Service
from deployments.tiers.tier import Tier
from router.engine import Router
from router.errors import BadConfig, BadRequest, NotFound, RequestFailed, WrongMethod
from router.limits.key_limits import Key
from router.request import wire
from router.request.json_text import SMALL
from router.types import Path
from router.types import Request as Asked

log = logging.getLogger("stepdown")
Endpoint = Callable[[Request, Key], Awaitable[Response]]


class Ingress:
    """The routes, and what stands around every request. accounts: None lets every client in and keeps nothing.

    services: those beside the ladder, by name.
    """

    behind_ray = False
    """Ray Serve's own servers stand before the application"""

    def __init__(
        self,
        router: Router,
        tiers: Mapping[str, Tier],
        accounts: Accounts | None,
        max_body_bytes: int,
        services: Mapping[str, Service] | None = None,
    ) -> None:
        self.max_body_bytes = max_body_bytes
        self.accounts = accounts or without_books()
        self.answering = Answering(router, tiers, self.accounts)
        self.settings, self.tiers, self.auditor = self.answering.settings, self.answering.tiers, self.answering.auditor
        server = router.config.server
        self.draining = self.answering.draining = Draining(server.drain_delay_s, server.drain_s)
        readiness = Readiness(self.tiers, router.config, self.accounts, self.tiers_down, self.draining)
        self.health = Health(readiness, router.names)
        self.services = Services(services or {}, lambda: self.router, self.accounts, self.read)
        self.models = Models(lambda: self.router)
        self.reloader: Reloader | None = None
        self.filler = self.filler_for(router)
        self.watcher: BundleWatcher | None = None
        self.variants: Variants | None = None
        self.keeper: VariantKeeper | None = None
        self.learning: ShownStatus | None = None

    @property
    def router(self) -> Router:
        """The router in use; a reload or a promotion replaces it."""
        return self.answering.router

    def use(self, router: Router) -> None:
        """Use another configured router; what was promoted over its artefact goes on deciding."""
        if self.watcher:
            self.watcher.rebase(router)
        else:
            self.answering.use(Routers(InUse(router)))

    def stand_beside(self, variants: Variants, keeper: VariantKeeper) -> None:
        """Have tiers on other weights beside the main application's. To be called before the application is opened."""
        self.variants, self.keeper, self.answering.variants = variants, keeper, variants
        if self.filler:
            self.filler.variants = variants

    def filler_for(self, router: Router) -> Filler | None:
        """What fills in the requests that were kept; None: none are kept."""
        ledger, metrics = self.accounts.ledger, self.accounts.metrics
        if ledger is None or router.config.learning.collect == "off":
            return None
        ladder = router.abilities, self.answering.prices, router.fingerprints, router.check, router.count
        hooks = lambda: bool(self.auditor.waiting), self.answering.balancer.elsewhere, metrics.called if metrics else None
        return Filler(ledger, self.tiers, router.config, *ladder, *hooks)

    def app(self) -> Starlette:
        chat, text = partial(self.answer, path="chat/completions"), partial(self.answer, path="completions")
        routes = [
            Route("/v1/chat/completions", self.guarded(chat), methods=["POST"]),  # first, since it is matched in order
            Route("/v1/completions", self.guarded(text), methods=["POST"]),
            *self.health.routes(),
            Route("/v1/models", self.guarded(self.models.all)),
            Route("/v1/models/{name:path}", self.guarded(self.models.one)),
            Route("/v1/status", self.guarded(self.status)),
            Route("/v1/key", self.guarded(self.key)),
            Route("/v1/decision", self.guarded(self.decision), methods=["POST"]),
            Route("/v1/admin/reload", self.guarded(self.reload), methods=["POST"]),
            Route("/openapi.json", openapi.endpoint),
            *self.services.routes(self.guarded),
            *Protocols(self.answering, self.read, self.accounts.check, self.states()).routes(self.guarded),
        ]
        if ledger := self.accounts.ledger:
            pages = self.live, self.may_see_costs, ledger.settled, self.learned
            routes += costs.routes(ledger.engine, self.router.config, *pages)
            kept = self.router.config.learning.redact, self.router.config.server.reasoning == "hide"
            routes += completion_routes.routes(ledger.engine, self.accounts.keys.look_up, ledger.settled, self.read_short, *kept)
        made = Starlette(
            routes=routes, exception_handlers={HTTPException: self.no_route}, middleware=self.around(), lifespan=self.lifespan
        )
        made.router.redirect_slashes = False  # would send clients to whatever host their request names
        return made

    def states(self) -> ResponseStates | None:
        """Where answers are kept that later requests may continue."""
        settings, ledger = self.router.config.responses, self.accounts.ledger
        if settings.store == "ledger" and ledger:
            return InLedger(ledger.engine, self.router.config.learning.keep_days)
        return None if settings.store == "off" else InMemory(settings.keep_bytes)

    def around(self) -> list[Middleware]:
        """What stands around all routes, the outermost first."""
        server = self.router.config.server
        framing = Middleware(Framing, names_request=not self.behind_ray)
        guard = Middleware(Guard, server=server, open_door=self.accounts.keys.insecure, draining=self.draining)
        return [framing, Middleware(Paths), *shared_with_pages(server, self.accounts.keys.insecure), guard]

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        watcher = self.watcher
        await self.accounts.open(lambda: self.router.flows.promises, lambda: watcher.promises if watcher else ())
        if self.variants and self.keeper:
            await self.variants.open()
            self.keeper.start()
        if watcher:
            await watcher.open()
        watched = self.reloader if self.router.config.server.reload == "watch" else None
        if watched and watched.file:
            watched.start()
        if self.filler:
            self.filler.start()
        try:
            yield
        finally:
            if self.filler:
                await self.filler.close()
            if watched:
                await watched.close()
            if watcher:
                await watcher.close()
            if self.variants and self.keeper:
                await self.keeper.close()
                await self.variants.close()
            await self.auditor.close()
            await self.accounts.close()
            await self.services.close()
            for tier in self.tiers.values():
                await tier.close()

    __serve_build_asgi_app__ = app  # Ray Serve calls this on each replica

    # -- around every request ----------------------------------------------------------------------------------

    def guarded(self, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        async def checked(request: Request) -> Response:
            try:
                key = await self.accounts.keys.look_up(request.headers)
                return await endpoint(request, key)
            except ClientDisconnect:
                return Response(status_code=499)
            except RequestFailed as error:
                return error_response(error)

        return checked

    async def no_route(self, request: Request, error: Exception) -> Response:
        if getattr(error, "status_code", 404) == 405:
            return error_response(WrongMethod(f"{request.method} is not allowed here"), {"allow": methods_of(request)})
        return error_response(NotFound("no such path; the API is under /v1: chat/completions, completions, models, decision"))

    async def read(self, request: Request, key: Key, counted_as: str = "") -> tuple[bytes, Key]:
        """The body, and the key with the limits that are left to check. Notes whether the body is large.

        counted_as: of requests that no tier answers: they have the key's requests a minute to themselves.

        Raises RateLimited, TooLarge, TooSlow, Overloaded, UnknownEncoding, BadRequest.
        """
        if counted_as:
            key = replace(key, id=f"{key.id} {counted_as}")
        self.accounts.keys.check_rates(key)
        raw = await deadline.read(request, self.max_body_bytes, self.router.config.server.body_timeout_s)
        LARGE.set(len(raw) if len(raw) > SMALL else 0)
        if not LARGE.get():
            return raw, key
        check_room()
        return raw, self.accounts.keys.count_now(key)

    async def read_short(self, request: Request, most_bytes: int) -> bytes:
        """A body that asks no tier. Raises TooLarge, TooSlow, UnknownEncoding, BadRequest."""
        limit_s = self.router.config.server.body_timeout_s
        return await deadline.read(request, min(most_bytes, self.max_body_bytes), limit_s)

    # -- endpoints -----------------------------------------------------------------------------------------------

    def tiers_down(self) -> dict[str, str]:
        """Tiers whose circuit is open, each with the reason; of those that everybody gets, not of a canary's."""
        lineup = self.answering.lineups.of(self.answering.routers.active)
        resting = {name: lineup.left_s(name) for name in self.router.names}
        return {name: f"it failed, and is tried again in {left:.1f} s" for name, left in resting.items() if left}

    async def status(self, request: Request, key: Key) -> Response:
        """The ladder, what each tier can do and how it is, the targets, and the certificate of each."""
        states = await asyncio.gather(*map(self.answering.state, self.router.names), return_exceptions=True)
        shown = {
            "tiers": list(self.router.names),
            "ladder": {
                name: {"state": state if isinstance(state, str) else "unknown", **self.router.abilities.shown(name)}
                for name, state in zip(self.router.names, states, strict=True)
            },
            "services": await self.services.status(),
            "target": self.router.default,
            "certificates": self.router.flows.promises.status(),
            "escalation": self.router.config.escalation.model_dump(),
            "delegation": self.router.config.delegation.mode,
            "learning": await self.learned(),
        }
        return JSONResponse(shown | ({"reload": self.reloader.last} if self.reloader and self.reloader.last else {}))

    async def key(self, request: Request, key: Key) -> Response:
        """What the holder of the key may."""
        return JSONResponse(key.shown() | {"collect": self.accounts.learning()["collect"]}, headers=NOT_KEPT)

    async def learned(self) -> dict[str, Any]:
        """How far learning from the traffic is, and which learned artefacts decide; also for the cost page."""
        shown = await self.learning.now() if self.learning else {}
        shown |= {"in_use": self.watcher.status()} if self.watcher else {}
        shown |= {"filling": self.filler.state()} if self.filler else {}
        return shown | self.accounts.learning()

    async def reload(self, request: Request, key: Key) -> Response:
        """Read routing, escalation, delegation and the artefact again, in this process. Raises NotAllowed, BadRequest."""
        key.require("admin")
        if self.reloader is None:
            raise BadRequest("this server was not started from a file; start it with: stepdown serve FILE")
        try:
            return JSONResponse(await self.reloader.from_file())
        except BadConfig as error:
            raise BadRequest(f"not reloaded, the old settings stay: {error}") from None

    async def live(self) -> dict[str, Any]:
        """The ladder as it is now, for the cost page. Queues and running calls are those of this process."""
        running = await asyncio.gather(*(tier.replicas() for tier in self.tiers.values()))
        beside = self.variants.busy() if self.variants else {}
        nothing = Busy()
        tiers = [
            {
                "tier": tier.name,
                "replicas": replicas + beside.get(tier.name, nothing).replicas,
                "running": tier.running + beside.get(tier.name, nothing).running,
                "queue": tier.waiting + beside.get(tier.name, nothing).waiting,
                "price": self.settings[tier.name].price.model_dump(exclude_none=True),
            }
            for tier, replicas in zip(self.tiers.values(), running, strict=True)
        ]
        ledger = self.accounts.ledger
        shown = {"tiers": tiers, "certificates": self.router.flows.promises.status()}
        return shown | ({"ledger": ledger.state, "spooled": ledger.spooled} if ledger else {})

    async def may_see_costs(self, request: Request) -> Key:
        """Raises BadKey, NotAllowed."""
        key = await self.accounts.keys.look_up(request.headers)
        key.require("costs")
        return key

    async def answer(self, request: Request, key: Key, path: Path) -> Response:
        self.accounts.check()
        raw, key = await self.read(request, key)
        return await self.answering.answer(request, key, await self.parsed(path, raw))

    async def parsed(self, path: Path, raw: bytes) -> Asked:
        """Raises BadRequest."""
        asked = await by_size(wire.parse, path, raw)
        named = self.router.named(asked.body)
        return asked if named is asked.body else replace(asked, body=named)

    async def decision(self, request: Request, key: Key) -> Response:
        """Decide without answering. Takes a chat or a completions body."""
        raw, key = await self.read(request, key)
        path: Path = "completions" if b'"prompt"' in raw and b'"messages"' not in raw else "chat/completions"
        began = time.perf_counter()
        asked = await self.parsed(path, raw)
        decided = await self.answering.decide(asked, key)
        took = (time.perf_counter() - began) * 1e3
        return JSONResponse(
            decision_json(decided) | {"decision_ms": round(took, 3)}, headers=decision_headers(decided, took, current())
        )


def methods_of(request: Request) -> str:
    """All methods of the request's path, for `Allow`: a path may have several routes, of which Starlette names one."""
    fitting = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    fitting = [route for route in fitting if "{" not in getattr(route, "path", "")] or fitting  # a path by name is no id
    return ", ".join(sorted({method for route in fitting for method in getattr(route, "methods", None) or ()}))
