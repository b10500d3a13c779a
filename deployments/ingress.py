"""HTTP in, HTTP out. A plain class: Ray Serve calls `app` on each replica, tests call it without Ray."""

import asyncio
import json
import logging
import random
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deployments import deadline, openapi
from deployments.accounts import Accounts, Key, nobody
from deployments.audit import Auditor
from deployments.costs import routes as costs
from deployments.deadline import Streamed, timed, within
from deployments.direct import Direct
from deployments.driver import Driver
from deployments.job import LEFT, Job
from deployments.reload import Reloader
from deployments.steering import Balancer
from deployments.tier import DONE, Tier, event
from deployments.watched import Watched, down
from router import cost, limits, server_tools, wire
from router.breaker import Breaker, instead
from router.config import VllmTier
from router.engine import Router
from router.errors import (
    BadConfig,
    BadRequest,
    DeadlineExceeded,
    NotFound,
    RequestFailed,
    StepdownError,
    TooLarge,
    TooSlow,
    UnknownModel,
    WrongMethod,
)
from router.flows import one_call
from router.hidden import Hidden, remembered
from router.retries import Retries
from router.sessions import Sessions, key_of
from router.types import Commit, Decision, End, Fail, Flow, Path
from router.types import Request as Asked

HEARTBEAT_S = 5.0  # a stream that has nothing to say yet says so; proxies close silent ones after 30 to 60 s
log = logging.getLogger("stepdown")


def error_response(error: StepdownError, shown: Mapping[str, str] | None = None) -> Response:
    """OpenAI's error body; anything we did not expect says no more than that. shown: headers besides."""
    known = error if isinstance(error, RequestFailed) else RequestFailed("internal error; the server's log has more")
    headers = known.headers()
    if isinstance(known, TooLarge | TooSlow):  # what is still to come of the body is not read
        headers["connection"] = "close"
    return JSONResponse(known.body(), known.status, headers | dict(shown or {}))


Endpoint = Callable[[Request, Key], Awaitable[Response]]
FLOWS = {"delegate": "delegation", "tool_mode": "tools", "run": "cascade", "remembered": "tools"}  # a generator's name -> ours


class Ingress:
    """accounts: keys, ledger, metrics; without them there is one open door and nothing is kept."""

    def __init__(self, router: Router, tiers: Mapping[str, Tier], accounts: Accounts | None, max_body_bytes: int) -> None:
        self.router, self.max_body_bytes = router, max_body_bytes
        self.breaker = Breaker(time.monotonic, random.random)
        self.retries = Retries(random.random)
        self.settings = {t.name: t for t in router.tiers}
        self.tiers = {name: Watched(tier, self.breaker, self.retries, self.replicas(name)) for name, tier in tiers.items()}
        self.balancer = Balancer(router.tiers, self.tiers, router.config.server.replicas)
        self.accounts = accounts or nobody()
        self.prices = {t.name: cost.prices(t) for t in router.tiers}
        top, rate = self.tiers[router.names[-1]], router.config.escalation.audit_rate
        self.auditor = Auditor(top, rate, lambda: self.router.flows.promises)
        self.sessions = Sessions()
        self.hidden = Hidden()
        self.started = int(time.time())
        self.reloader: Reloader | None = None

    def replicas(self, name: str) -> int:
        """That a tier may have."""
        tier = self.settings[name]
        return (tier.max_replicas or tier.replicas) if isinstance(tier, VllmTier) else 1

    def app(self) -> Starlette:
        def chat(request: Request, key: Key) -> Awaitable[Response]:
            return self.answer(request, key, "chat/completions")

        def text(request: Request, key: Key) -> Awaitable[Response]:
            return self.answer(request, key, "completions")

        routes = [
            Route("/healthz", self.healthz),
            Route("/v1/models", self.guarded(self.models)),
            Route("/v1/models/{name}", self.guarded(self.model)),
            Route("/v1/chat/completions", self.guarded(chat), methods=["POST"]),
            Route("/v1/completions", self.guarded(text), methods=["POST"]),
            Route("/v1/status", self.guarded(self.status)),
            Route("/v1/decision", self.guarded(self.decision), methods=["POST"]),
            Route("/v1/admin/reload", self.guarded(self.reload), methods=["POST"]),
            Route("/openapi.json", openapi.endpoint),
        ]
        if self.accounts.ledger:
            routes += costs.routes(self.accounts.ledger.engine, self.router.config, self.live, self.may_see_costs)
        handlers = {HTTPException: self.no_route, Exception: self.unexpected}
        made = Starlette(routes=routes, exception_handlers=handlers, lifespan=self.lifespan)
        made.router.redirect_slashes = False  # would send clients to whatever host their request names
        return made

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        await self.accounts.open(lambda: self.router.flows.promises)
        watched = self.reloader if self.router.config.server.reload == "watch" else None
        if watched and watched.file:
            watched.start()
        try:
            yield
        finally:
            if watched:
                await watched.close()
            await self.auditor.close()
            await self.accounts.close()

    __serve_build_asgi_app__ = app  # Ray Serve calls this on each replica

    # -- around every request ----------------------------------------------------------------------------------

    def guarded(self, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        async def checked(request: Request) -> Response:
            try:
                key = await self.accounts.keys.look_up(request.headers.get("authorization", ""))
                return await endpoint(request, key)
            except ClientDisconnect:
                return Response(status_code=499)
            except RequestFailed as error:
                return error_response(error)

        return checked

    async def no_route(self, request: Request, error: Exception) -> Response:
        if getattr(error, "status_code", 404) == 405:
            return error_response(WrongMethod(f"{request.method} is not allowed here"), getattr(error, "headers", None))
        return error_response(NotFound("no such path; the API is under /v1: chat/completions, completions, models, decision"))

    async def unexpected(self, request: Request, error: Exception) -> Response:
        log.exception("unexpected error", exc_info=error)
        return error_response(StepdownError())

    async def read(self, request: Request) -> bytes:
        """Raises TooLarge, TooSlow."""
        return await deadline.read(request, self.max_body_bytes, self.router.config.server.body_timeout_s)

    # -- endpoints -----------------------------------------------------------------------------------------------

    async def healthz(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "tiers": list(self.router.names)})

    def card(self, name: str) -> dict[str, Any]:
        """OpenAI's model object; a way of routing has its certificate's state besides."""
        shown: dict[str, Any] = {"id": name, "object": "model", "created": self.started, "owned_by": "stepdown"}
        target = self.router.target_of(name)
        return shown | ({"certificate": self.router.flows.promises.state(target)} if target else {})

    async def status(self, request: Request, key: Key) -> Response:
        """The ladder, the targets, and what is promised of each."""
        shown = {
            "tiers": list(self.router.names),
            "target": self.router.default,
            "certificates": self.router.flows.promises.told(),
            "escalation": self.router.config.escalation.model_dump(),
            "delegation": self.router.config.delegation.mode,
        }
        return JSONResponse(shown | ({"reload": self.reloader.told} if self.reloader and self.reloader.told else {}))

    def use(self, router: Router) -> None:
        """From now on; requests under way keep the flow they have."""
        self.router, self.auditor.share = router, router.config.escalation.audit_rate

    async def reload(self, request: Request, key: Key) -> Response:
        """Read routing, escalation, delegation and the artefact again, in this process. Raises NotAllowed, BadRequest."""
        key.may("admin")
        if self.reloader is None:
            raise BadRequest("this server was not started from a file; start it with: stepdown serve FILE")
        try:
            return JSONResponse(await self.reloader.from_file())
        except BadConfig as error:
            raise BadRequest(f"not reloaded, the old settings stay: {error}") from None

    async def live(self) -> dict[str, Any]:
        """The ladder as it is now, for the cost page. Queue and use are this process's own."""
        running = await asyncio.gather(*(tier.replicas() for tier in self.tiers.values()))
        tiers = [
            {
                "tier": tier.name,
                "replicas": replicas,
                "running": tier.running,
                "queue": tier.waiting,
                "price": self.settings[tier.name].price.model_dump(exclude_none=True),
            }
            for tier, replicas in zip(self.tiers.values(), running, strict=True)
        ]
        ledger = self.accounts.ledger
        shown = {"tiers": tiers, "certificates": self.router.flows.promises.told()}
        return shown | ({"ledger": ledger.state, "spooled": ledger.spooled} if ledger else {})

    async def may_see_costs(self, request: Request) -> Key:
        """Raises BadKey, NotAllowed."""
        key = await self.accounts.keys.look_up(request.headers.get("authorization", ""))
        key.may("costs")
        return key

    def known_models(self) -> list[str]:
        return ["auto", *(f"auto:{target}" for target in self.router.targets), *self.router.names]

    async def models(self, request: Request, key: Key) -> Response:
        return JSONResponse({"object": "list", "data": [self.card(name) for name in self.known_models()]})

    async def model(self, request: Request, key: Key) -> Response:
        name = request.path_params["name"]
        if name not in self.known_models():
            raise UnknownModel(name, list(self.router.names), self.router.targets)
        return JSONResponse(self.card(name))

    async def decision(self, request: Request, key: Key) -> Response:
        """Decide without answering; takes a chat or a completions body."""
        raw = await self.read(request)
        path: Path = "completions" if b'"prompt"' in raw and b'"messages"' not in raw else "chat/completions"
        began = time.perf_counter()
        decided = self.decide(wire.parse(path, raw), key)
        took = (time.perf_counter() - began) * 1e3
        return JSONResponse(told(decided) | {"decision_ms": round(took, 3)}, headers=headers(decided, took, uuid.uuid4().hex))

    def decide(self, asked: Asked, key: Key, before: str | None = None) -> Decision:
        """Among the tiers that the key may use. Raises BadRequest, UnknownModel, NotAllowed."""
        wanted = str(asked.body["model"])
        target = self.router.target_of(wanted)
        key.allow(wanted if target is None else None, target)
        barred = key.excluded(self.router.names)
        if target is not None:
            barred |= self.breaker.down([name for name in self.router.names if name not in barred])
        decided = self.router.decide(asked, before, barred)
        stays = decided.reason in ("kept in a tool loop", "only one fits")
        return decided if stays else self.balancer.place(decided, self.router.rule(target) if target else None)

    async def answer(self, request: Request, key: Key, path: Path) -> Response:
        self.accounts.check()
        asked = wire.parse(path, await self.read(request))
        owner = request.headers.get("authorization", "")
        session = key_of(asked.body, request.headers.get("x-session-id"), owner)
        asked, recalled = self.hidden.recall(owner, asked)
        began = time.perf_counter()
        decided = self.decide(asked, key, (recalled and recalled.tier) or self.sessions.tier(session))
        self.sessions.remember(session, decided.tier)
        took_ms = (time.perf_counter() - began) * 1e3
        job = Job(self.accounts, key, asked, decided, self.settings, self.prices, self.router.count, took_ms)
        job.limit_s = self.router.config.server.request_timeout_s
        shown = headers(decided, took_ms, job.id)
        if key.budgeted:  # an answer without a limit would set a whole window aside
            tier = self.settings[decided.tier]
            job.asked = asked = replace(asked, body=limits.capped(asked.body, tier, self.router.count[tier.name]))
        flow = self.router.flow(asked, decided)
        if recalled and path == "chat/completions":
            flow = remembered(flow or one_call(decided.tier, server_tools.without(asked.body), {}), recalled)
        job.flow = FLOWS.get(getattr(flow, "__name__", ""), "direct")
        try:
            await self.admit(job)
            if flow is None:
                return await self.passed(job, shown)
            keep = partial(self.keep, owner)
            driver = Driver(self.tiers, job, own_logprobs=not asked.body.get("logprobs"), keep=keep)
            return await self.follow(request, driver, flow, shown)
        except RequestFailed as error:
            return await self.refused(job, error, shown)
        except Exception as error:
            job.left(LEFT if isinstance(error, ClientDisconnect) else 500)
            raise
        except BaseException:  # cancelled: the client left
            job.left()
            raise

    async def admit(self, job: Job) -> None:
        """Reserve what the request may cost. Raises RateLimited, BudgetSpent."""
        if job.key.limited:
            size, usd = limits.most(self.router, job.asked, job.decided, job.flow)
            job.grant = await self.accounts.keys.admit(job.key, job.id, size, usd)

    async def refused(self, job: Job, error: RequestFailed, shown: Mapping[str, str]) -> Response:
        """The error as the client gets it, written down like an answer."""
        try:
            await job.finish(error.status, error)
        except RequestFailed as down:
            return error_response(down, shown)
        return error_response(error, shown)

    async def passed(self, job: Job, shown: dict[str, str]) -> Response:
        """One plain call; where its tier is down, the next one's. Raises RequestFailed before anything was sent."""
        others = self.instead(job.decided)
        while True:
            try:
                return await self.plain(job, shown, self.tiers[job.tier or job.decided.tier])
            except RequestFailed as error:
                if not down(error) or not others:
                    raise
                shown["x-stepdown-degraded"] = f"{job.tier} {error.code}"
                job.tier = shown["x-stepdown-tier"] = others.pop(0)

    def instead(self, decided: Decision) -> list[str]:
        """Who may answer for the tier decided on; nobody where the client named it."""
        how = self.router.config.routing.when_down if decided.target not in self.router.names else "none"
        return instead(self.router.names, decided.tier, decided.excluded, how)

    async def plain(self, job: Job, shown: dict[str, str], tier: Tier) -> Response:
        direct = Direct.of(tier, job)
        if not job.asked.stream:
            raw = await within(job, direct.complete())
            await job.finish()
            return Response(raw, media_type="application/json", headers=shown | cost_header(job))
        events = direct.stream()
        first = await within(job, anext(events, b""))  # errors before the first event still get their status
        return Streamed(job, self.ending(job, first, events), shown)

    async def ending(self, job: Job, first: bytes, events: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        """The stream; before its end it is written down. A failure in the middle is an event, not silence."""
        try:
            async with aclosing(events):
                if first:
                    yield first
                async for item in timed(job, events):
                    yield item
            await job.finish()
            self.auditor.answered(job)
        except RequestFailed as error:
            with suppress(RequestFailed):  # the client is told of the first failure
                await job.finish(error.status, error)
            yield event(error.body())
        except Exception:
            job.left(500)
            raise
        finally:
            job.left()
        yield DONE

    def keep(self, owner: str, end: Commit, tier: str) -> str:
        return self.hidden.keep(owner, end.hidden, end.splice, tier)

    async def follow(self, request: Request, driver: Driver, flow: Flow, shown: dict[str, str]) -> Response:
        """Run a flow; while a stream waits for its first byte it is kept open by comments. Raises RequestFailed."""
        running, left = asyncio.create_task(driver.run(flow)), asyncio.create_task(gone(request))
        try:
            # Errors that come soon still get a status of their own; later ones are events in the stream.
            wait_s = HEARTBEAT_S if driver.request.stream else driver.job.left_s
            await asyncio.wait({running, left}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            if left.done():
                raise ClientDisconnect
            if running.done():
                end = running.result()
                shown.update(ended(driver, end))
                if isinstance(end, Fail):
                    raise end.error
                if not driver.request.stream:
                    body = driver.whole(end)
                    await driver.job.finish()
                    self.auditor.answered(driver.job)
                    text = json.dumps(body)  # ASCII: a tier's answer may hold half a character, which UTF-8 cannot
                    return Response(text, media_type="application/json", headers=shown | cost_header(driver.job))
            elif not driver.request.stream:
                raise DeadlineExceeded(driver.job.limit_s)
            events = self.driven(driver, running)
            return Streamed(driver.job, self.ending(driver.job, b"", events), shown)
        except BaseException:
            running.cancel()
            await asyncio.wait({running})  # its calls are stopped and counted before they are written down
            raise
        finally:
            left.cancel()

    async def driven(self, driver: Driver, running: "asyncio.Task[End]") -> AsyncGenerator[bytes]:
        """What a flow says, without the last event, [DONE]. Raises RequestFailed."""
        try:
            while not running.done():
                yield f": stepdown {driver.phase}\n\n".encode()
                await asyncio.wait({running}, timeout=HEARTBEAT_S)
            end = running.result()
            if isinstance(end, Fail):
                raise end.error
            async with aclosing(driver.streamed(end)) as events:
                async for item in events:
                    yield item
        finally:
            running.cancel()
            await asyncio.wait({running})


async def gone(request: Request) -> None:
    """Returns when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def ended(driver: Driver, end: End) -> dict[str, str]:
    """Headers of what a flow came to."""
    shown = {f"x-stepdown-{name}": str(end.told[name]) for name in ("escalations", "delegation", "state") if name in end.told}
    tier = driver.answered_by(end)
    return shown | ({"x-stepdown-tier": tier} if tier else {}) | {"x-stepdown-calls": str(len(driver.records))}


def cost_header(job: Job) -> dict[str, str]:
    """Token price of all calls; a stream says it in its usage."""
    return {"x-stepdown-cost-usd": f"{job.cost_usd():.9g}"}


def told(decided: Decision) -> dict[str, Any]:
    """A decision with every step."""
    return {
        "tier": decided.tier,
        "reason": decided.reason,
        "target": decided.target,
        "confidence": decided.confidence,
        "unfamiliar": decided.unfamiliar,
        "p": dict(decided.p),
        "excluded": dict(decided.excluded),
        "first": list(decided.first) or [decided.tier],
        "certificate": decided.certificate or None,
        "delegation": decided.considered.told() if decided.considered else None,
    }


def headers(decided: Decision, took_ms: float, trace_id: str) -> dict[str, str]:
    """What the client sees of the decision."""
    shown = {
        "x-stepdown-tier": decided.tier,
        "x-stepdown-reason": decided.reason,
        "x-stepdown-decision-ms": f"{took_ms:.3f}",
        "x-stepdown-trace-id": trace_id,
    }
    if decided.certificate:
        shown["x-stepdown-certificate"] = decided.certificate
    if decided.considered and decided.considered.state:  # a no; what comes of a yes is told at the end
        shown["x-stepdown-delegation"] = decided.considered.state
    if decided.confidence is not None:
        shown["x-stepdown-confidence"] = f"{decided.confidence:.4f}"
    return shown


