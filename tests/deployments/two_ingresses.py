"""Two ingresses of one server in one event loop, over one exchange, without Ray."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
from live import ladder
from scripted_tier import Said, ScriptedTier

from deployments.endpoint.accounts import Accounts, without_books
from deployments.endpoint.ingress import Ingress
from deployments.endpoint.ingresses.exchange import IngressExchange
from router.engine import Router


class Wishing(Router):
    """`auto` is the tier that it wishes, unless the conversation has one."""

    wish = "small"

    def decide(self, asked, before=None, barred=()):
        decided = super().decide(asked, before, dict(barred))
        return decided if decided.target in self.names else replace(decided, tier=before or self.wish)


class Reached:
    """The exchange as an ingress reaches it. away: it does not answer."""

    def __init__(self, exchange: IngressExchange) -> None:
        self.exchange, self.away, self.asked = exchange, False, []

    async def __call__(self, method: str, *given: Any) -> Any:
        self.asked.append(method)
        if self.away:
            raise ConnectionError("the exchange was killed")
        return await getattr(self.exchange, method)(*given)


class Two:
    """first, second: clients of the two ingresses."""

    def __init__(self, said, accounts: list[Accounts | None] | None = None, kind=Wishing, **sections: Any) -> None:
        config = ladder(**{"server": {"replicas": 2}, **sections})
        self.exchange = IngressExchange(1_000_000)
        self.reached = Reached(self.exchange)
        count = dict.fromkeys(config.names, lambda text: len(text.split()))
        self.routers = [kind(config, None, count) for _ in range(2)]
        self.tiers: list[Mapping[str, ScriptedTier]] = [{n: ScriptedTier(n, said) for n in config.names} for _ in range(2)]
        books = accounts or [without_books(), without_books()]
        made = zip(self.routers, self.tiers, books, strict=True)
        self.ingresses = [Ingress(router, tiers, book, 1_000_000) for router, tiers, book in made]
        for ingress in self.ingresses:
            ingress.meet(self.reached)

    @asynccontextmanager
    async def served(self) -> AsyncIterator[list[httpx.AsyncClient]]:
        async with AsyncExitStack() as stack:
            clients = []
            for ingress in self.ingresses:
                app = ingress.app()
                await stack.enter_async_context(ingress.lifespan(app))
                client = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost/v1", timeout=30)
                clients.append(await stack.enter_async_context(client))
            yield clients


def chat(*texts: str, model: str = "auto", **more: Any) -> dict[str, Any]:
    """A chat whose texts are the user's and the assistant's in turn."""
    roles = ("user", "assistant")
    return {"model": model, "messages": [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)], **more}


def four(body: Mapping[str, Any]) -> Said:
    return Said("four")
