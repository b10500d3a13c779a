"""One endpoint over scripted tiers, written down in a ledger of its own, on a real port."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from live import PRICES, serving
from scripted_tier import Said, ScriptedTier
from sqlalchemy import select

from deployments.endpoint.accounts import Accounts
from deployments.keys.admission import Keys
from deployments.ledger import schema
from deployments.ledger.ledger import Ledger
from router.config import Config
from router.engine import Router

NAMES = ("small", "large")
CHAT = {"model": "auto", "messages": [{"role": "user", "content": "one two three"}]}


def ladder(replicas: int = 1, **sections: Any) -> Config:
    """Settings as of vLLM tiers; the tests put scripted ones in their place."""
    price = {n: {"usd_per_1m_input": PRICES[n], "usd_per_1m_output": PRICES[n]} for n in NAMES}
    same = {"engine": "vllm", "source": "none", "context": 100_000, "replicas": replicas}
    tiers = [{"name": n, "price": price[n], **same} for n in NAMES]
    return Config.model_validate({"tiers": tiers, **sections})


def count(text: str) -> int:
    return len(text.split())


count.exact = True  # type: ignore[attr-defined]  # as a tier's own tokenizer is, see router.bounds


def words(body: Any) -> Said:
    return Said("four five six seven")


def in_turn(*said: Said) -> Any:
    """A script that says these one after the other, the last for ever."""
    left = list(said)
    return lambda body: left.pop(0) if len(left) > 1 else left[0]


@dataclass
class Endpoint:
    url: str
    tiers: dict[str, ScriptedTier]
    ledger: Ledger
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30))

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.split("/")[2].partition(":")
        return host, int(port)

    def ask(self, **changes: Any) -> httpx.Response:
        return self.client.post(f"{self.url}/chat/completions", json={**CHAT, **changes})

    def rows(self, table: Any = schema.traces) -> list[dict[str, Any]]:
        asyncio.run(self.ledger.settled())
        with self.ledger.engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(select(table))]

    def calls(self) -> list[dict[str, Any]]:
        return self.rows(schema.calls)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=20)


@contextlib.contextmanager
def endpoint(config: Config, ledger: Ledger, keys: Keys | None = None, **scripts: Any) -> Iterator[Endpoint]:
    """keys: by default none is asked for."""
    router = Router(config, None, dict.fromkeys(config.names, count))
    tiers = {name: ScriptedTier(name, scripts.get(name, words)) for name in config.names}
    accounts = Accounts(keys or Keys(None, insecure=True), ledger, tiers={tier.name: tier for tier in config.tiers})
    with serving(router, tiers, accounts) as url:
        made = Endpoint(url, tiers, ledger)
        with made.client:
            yield made
