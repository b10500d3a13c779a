"""HTTP in, HTTP out. A plain class: Ray Serve calls `app` on each replica, tests call it without Ray."""

import asyncio
import hashlib
import hmac
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from deployments.driver import Driver, Rate
from deployments.tier import DONE, Tier, event
from router import server_tools, wire
from router.cost import per_token
from router.engine import Router
from router.errors import BadKey, NotFound, RequestFailed, StepdownError, TooLarge, UnknownModel, WrongMethod
from router.flows import one_call
from router.hidden import Hidden, remembered
from router.sessions import Sessions, key_of
from router.types import Commit, Decision, End, Fail, Flow, Path, Say

HEARTBEAT_S = 5.0  # a stream that has nothing to say yet says so; proxies close silent ones after 30 to 60 s
log = logging.getLogger("stepdown")


def hashed(key: str) -> str:
    """What is kept of an API key."""
    return hashlib.sha256(key.encode()).hexdigest()


def error_response(error: StepdownError, shown: Mapping[str, str] | None = None) -> Response:
    """OpenAI's error body; anything we did not expect says no more than that. shown: headers besides."""
    known = error if isinstance(error, RequestFailed) else RequestFailed("internal error; the server's log has more")
    headers = {"retry-after": f"{known.retry_after_s:.0f}"} if known.retry_after_s else {}
    if isinstance(known, BadKey):
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(known.body(), known.status, headers | dict(shown or {}))


class Ingress:
    """`key_hash`: SHA-256 of the API key, hexadecimal; empty: no key is asked for."""

    def __init__(self, router: Router, tiers: Mapping[str, Tier], key_hash: str, max_body_bytes: int) -> None:
        self.router, self.tiers, self.key_hash, self.max_body_bytes = router, tiers, key_hash, max_body_bytes
        self.rates = {t.name: Rate(per_token(t), router.count[t.name]) for t in router.tiers}
        self.sessions = Sessions()
        self.hidden = Hidden()
        self.started = int(time.time())

    def app(self) -> Starlette:
        def chat(request: Request) -> Awaitable[Response]:
            return self.answer(request, "chat/completions")

        def text(request: Request) -> Awaitable[Response]:
            return self.answer(request, "completions")

        routes = [
            Route("/healthz", self.healthz),
            Route("/v1/models", self.guarded(self.models)),
            Route("/v1/models/{name}", self.guarded(self.model)),
            Route("/v1/chat/completions", self.guarded(chat), methods=["POST"]),
            Route("/v1/completions", self.guarded(text), methods=["POST"]),
            Route("/v1/status", self.guarded(self.status)),
            Route("/v1/decision", self.guarded(self.decision), methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: self.no_route, Exception: self.unexpected})

    __serve_build_asgi_app__ = app  # Ray Serve calls this on each replica

    # -- around every request ----------------------------------------------------------------------------------

    def guarded(self, endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def checked(request: Request) -> Response:
            try:
                self.check_key(request)
                return await endpoint(request)
            except ClientDisconnect:
                return Response(status_code=499)
            except RequestFailed as error:
                return error_response(error)

        return checked

    def check_key(self, request: Request) -> None:
        """Constant-time, on hashes. Raises BadKey."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if self.key_hash and not (scheme.lower() == "bearer" and hmac.compare_digest(hashed(key.strip()), self.key_hash)):
            raise BadKey

    async def no_route(self, request: Request, error: Exception) -> Response:
        if getattr(error, "status_code", 404) == 405:
            return error_response(WrongMethod(f"{request.method} is not allowed here"))
        return error_response(NotFound("no such path; the API is under /v1: chat/completions, completions, models, decision"))

    async def unexpected(self, request: Request, error: Exception) -> Response:
        log.exception("unexpected error", exc_info=error)
        return error_response(StepdownError())

    async def read(self, request: Request) -> bytes:
        """The body, never more of it than the limit. Raises TooLarge."""
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > self.max_body_bytes:
                raise TooLarge(self.max_body_bytes)
            parts.append(part)
        return b"".join(parts)

    # -- endpoints -----------------------------------------------------------------------------------------------

    async def healthz(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "tiers": list(self.router.names)})

    def card(self, name: str) -> dict[str, Any]:
        """OpenAI's model object; a way of routing has its certificate's state besides."""
        shown: dict[str, Any] = {"id": name, "object": "model", "created": self.started, "owned_by": "stepdown"}
        target = self.router.target_of(name)
        return shown | ({"certificate": self.router.flows.promises.state(target)} if target else {})

    async def status(self, request: Request) -> Response:
        """The ladder, the targets, and what is promised of each."""
        shown = {
            "tiers": list(self.router.names),
            "target": self.router.default,
            "certificates": self.router.flows.promises.told(),
            "escalation": self.router.config.escalation.model_dump(),
            "delegation": self.router.config.delegation.mode,
        }
        return JSONResponse(shown)

    def known_models(self) -> list[str]:
        return ["auto", *(f"auto:{target}" for target in self.router.targets), *self.router.names]

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self.card(name) for name in self.known_models()]})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self.known_models():
            raise UnknownModel(name, list(self.router.names), self.router.targets)
        return JSONResponse(self.card(name))

    async def decision(self, request: Request) -> Response:
        """Decide without answering; takes a chat or a completions body."""
        raw = await self.read(request)
        path: Path = "completions" if b'"prompt"' in raw and b'"messages"' not in raw else "chat/completions"
        began = time.perf_counter()
        decided = self.router.decide(wire.parse(path, raw))
        took = (time.perf_counter() - began) * 1e3
        return JSONResponse(told(decided) | {"decision_ms": round(took, 3)}, headers=headers(decided, took, uuid.uuid4().hex))

    async def answer(self, request: Request, path: Path) -> Response:
        asked = wire.parse(path, await self.read(request))
        owner = request.headers.get("authorization", "")
        session = key_of(asked.body, request.headers.get("x-session-id"), owner)
        asked, recalled = self.hidden.recall(owner, asked)
        began = time.perf_counter()
        decided = self.router.decide(asked, (recalled and recalled.tier) or self.sessions.tier(session))
        self.sessions.remember(session, decided.tier)
        shown = headers(decided, (time.perf_counter() - began) * 1e3, uuid.uuid4().hex)
        flow = self.router.flow(asked, decided)
        if recalled and path == "chat/completions":
            flow = remembered(flow or one_call(decided.tier, server_tools.without(asked.body), {}), recalled)
        if flow is not None:
            keep = partial(self.keep, owner)
            driver = Driver(self.tiers, self.rates, asked, own_logprobs=not asked.body.get("logprobs"), keep=keep)
            return await self.follow(request, driver, flow, shown)
        tier, body = self.tiers[decided.tier], wire.forwarded(asked.body, decided.tier)
        try:
            if not asked.stream:
                return Response(await tier.complete(path, body), media_type="application/json", headers=shown)
            events = tier.stream(path, body)
            first = await anext(events, DONE)  # errors before the first event still get their status
        except RequestFailed as error:
            return error_response(error, shown)
        return StreamingResponse(self.whole(first, events), media_type="text/event-stream", headers=shown)

    def keep(self, owner: str, end: Commit, tier: str) -> str:
        return self.hidden.keep(owner, end.hidden, end.splice, tier)

    async def follow(self, request: Request, driver: Driver, flow: Flow, shown: dict[str, str]) -> Response:
        """Run a flow; while a stream waits for its first byte it is kept open by comments."""
        running, left = asyncio.create_task(driver.run(flow)), asyncio.create_task(gone(request))
        try:
            # Errors that come soon still get a status of their own; later ones are events in the stream.
            wait_s = HEARTBEAT_S if driver.request.stream else None
            await asyncio.wait({running, left}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            if left.done():
                raise ClientDisconnect
            if running.done():
                end = running.result()
                shown.update(ended(driver, end))
                if isinstance(end, Fail):
                    return error_response(end.error, shown)
                if not driver.request.stream:
                    return JSONResponse(driver.whole(end), headers=shown)
            return StreamingResponse(self.driven(driver, running), media_type="text/event-stream", headers=shown)
        except BaseException:
            running.cancel()
            raise
        finally:
            left.cancel()

    async def driven(self, driver: Driver, running: "asyncio.Task[End]") -> AsyncIterator[bytes]:
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
        except RequestFailed as error:
            yield event(error.body())
            yield DONE
        finally:
            running.cancel()

    async def whole(self, first: bytes, events: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
        """The stream; a tier that fails in the middle ends it with an error event, not with silence."""
        yield first
        try:
            async with aclosing(events):  # a client that leaves between two events must not leave the tier working
                async for item in events:
                    yield item
        except RequestFailed as error:
            yield event(error.body())
            yield DONE


async def gone(request: Request) -> None:
    """Returns when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def ended(driver: Driver, end: End) -> dict[str, str]:
    """Headers of what a flow came to."""
    tier = end.tier if isinstance(end, Say) else driver.records[end.call_id].call.tier if isinstance(end, Commit) else None
    shown = {f"x-stepdown-{name}": str(end.told[name]) for name in ("escalations", "delegation", "state") if name in end.told}
    return shown | ({"x-stepdown-tier": tier} if tier else {}) | {"x-stepdown-calls": str(len(driver.records))}


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
    if decided.confidence is not None:
        shown["x-stepdown-confidence"] = f"{decided.confidence:.4f}"
    return shown


