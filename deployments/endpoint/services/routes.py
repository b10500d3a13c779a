"""The paths of the services: a request's bytes go to the service that it names, and the answer's bytes come back."""

import random
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deployments.beside_loop import by_size
from deployments.endpoint.accounts import Accounts
from deployments.endpoint.replies import error_response
from deployments.endpoint.services.service_call import ServiceCall
from deployments.services.service import Service
from deployments.services.watched_service import Watched
from deployments.tiers.token_counters import service_counters
from router.engine import Router
from router.errors import RequestFailed
from router.limits.key_limits import Key
from router.service_settings import Kind
from router.services.body import parse
from router.services.choice import service_for
from router.traffic.breaker import Breaker
from router.traffic.retries import Retries

Endpoint = Callable[[Request, Key], Awaitable[Response]]
ReadBody = Callable[[Request, Key], Awaitable[tuple[bytes, Key]]]
PATHS: Mapping[str, Kind] = {
    "/v1/embeddings": "embeddings",
    "/v1/rerank": "rerank",
    "/v2/rerank": "rerank",  # Cohere's clients, and Jina's
    "/v1/score": "score",
}


class Services:
    """router: the one that decides now; of a reload only its aliases change. read: a request's body, and its key with the limits
    that are left to check.
    """

    def __init__(self, services: Mapping[str, Service], router: Callable[[], Router], accounts: Accounts, read: ReadBody) -> None:
        config = router().config
        self.router, self.accounts, self.read, self.limit_s = router, accounts, read, config.server.request_timeout_s
        self.settings = {service.name: service for service in config.services}
        self.breaker, retries = Breaker(time.monotonic, random.random), Retries(random.random)
        self.services = {name: Watched(services[name], its, self.breaker, retries) for name, its in self.settings.items()}
        self.counts = service_counters(config)

    def routes(self, guarded: Callable[[Endpoint], Any]) -> list[Route]:
        return [Route(path, guarded(partial(self.answer, kind=kind)), methods=["POST"]) for path, kind in PATHS.items()]

    async def close(self) -> None:
        for watched in self.services.values():
            await watched.service.close()

    async def status(self) -> dict[str, Any]:
        """What each service does, and how it is."""
        return {name: {"kind": its.kind, "state": await self.state(name)} for name, its in self.settings.items()}

    async def state(self, name: str) -> str:
        """`ready`, `circuit open`, `cold` (it starts with its first request) or `no replica`."""
        if self.breaker.left_s(name):
            return "circuit open"
        if await self.services[name].service.replicas():
            return "ready"
        return "cold" if self.settings[name].sleeps else "no replica"

    async def answer(self, request: Request, key: Key, kind: Kind) -> Response:
        """Raises RequestFailed where no service was asked. Later failures are returned as answers and written down."""
        self.accounts.check()
        raw, key = await self.read(request, key)
        asked = await by_size(parse, kind, raw)
        router = self.router()
        service = service_for(router.config, kind, router.stands_for(asked.wanted))
        key.check_model(service.name, None)
        call = ServiceCall(self.accounts, key, service, asked, self.limit_s)
        shown = {"x-stepdown-service": service.name, "x-stepdown-trace-id": call.id}
        try:
            if key.limited:
                await call.admit(await by_size(asked.most_tokens, self.counts[service.name], service.context))
            found = await call.answered(self.services[service.name].ask(asked, call.call_id))
            await call.finish()
        except RequestFailed as error:
            return await self.record_failure(call, error, shown)
        except BaseException as error:  # cancelled: the client left
            call.left(500 if isinstance(error, Exception) else 499)
            raise
        headers = shown | {"x-stepdown-cost-usd": f"{call.cost_usd:.9g}"}
        return Response(found.raw, media_type="application/json", headers=headers)

    async def record_failure(self, call: ServiceCall, error: RequestFailed, shown: Mapping[str, str]) -> Response:
        """Write the failure down like an answer. Returns it as the client gets it."""
        try:
            await call.finish(error.status, error)
        except RequestFailed as down:
            return error_response(down, shown)
        return error_response(error, shown)
