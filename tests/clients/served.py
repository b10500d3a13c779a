"""Serves the product itself over steered tiers, without Ray: `python -m tests.clients.served --port N --folder F`.

A ladder of two tiers, a ledger on SQLite and keys, as `stepdown serve` has them. What only tests need lies under `/-/`: which
requests came in, what the tiers were sent, what the ledger has.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import uvicorn
from sqlalchemy import select
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.endpoint.accounts import Accounts
from deployments.endpoint.ingress import Ingress
from deployments.keys import key_store
from deployments.keys.admission import Keys
from deployments.ledger import schema
from deployments.ledger.ledger import Ledger
from deployments.services.echo_service import EchoService
from deployments.tiers.token_counters import counters
from router.config import Config
from router.engine import Router
from router.limits.key_limits import RIGHTS, Key
from router.traffic.breaker import Breaker
from tests.clients.steered_tier import SteeredTier

PRICES = {"small": 1.0, "large": 5.0}
WINDOWS = {"small": 64_000, "large": 200_000}
ALIASES = {"claude-opus-*": "large", "claude-*": "auto", "gpt-*": "auto", "text-embedding-*": "embed"}
CONTROL = "/-/"


def settings(folder: Path, more: dict[str, Any], window: int | None = None) -> Config:
    """window: of every tier, in tokens; None: WINDOWS."""
    tiers = [
        {
            "name": name,
            "engine": "echo",
            "context": window or WINDOWS[name],
            "price": {"usd_per_1m_input": usd, "usd_per_1m_output": 4 * usd},
            "images": True,
        }
        for name, usd in PRICES.items()
    ]
    ledger = {"url": f"sqlite:///{folder}/ledger.db"}
    embed = {"name": "embed", "kind": "embeddings", "engine": "echo", "context": 8192, "price": {"usd_per_1m_input": 0.1}}
    return Config.model_validate({"tiers": tiers, "services": [embed], "ledger": ledger, "aliases": ALIASES, **more})


def keys_of(config: Config, folder: Path) -> dict[str, str]:
    """The secrets of three keys, made at the first start in the folder: one that may do all, another, and a limited one."""
    kept = folder / "keys.json"
    if not kept.exists():
        engine = key_store.open_key_store(config.ledger)
        rights = frozenset(RIGHTS)
        wanted = [Key("", "full", rights=rights), Key("", "other", rights=rights), Key("", "limited", requests_per_minute=2)]
        kept.write_text(json.dumps({key.name: key_store.create(engine, key, time.time())[1] for key in wanted}))
        engine.dispose()
    found: dict[str, str] = json.loads(kept.read_text())
    return found


class Recorder:
    """The product's application, with a list of the requests that came in and a way to look behind it."""

    def __init__(self, ingress: Ingress, app: ASGIApp, tiers: dict[str, SteeredTier]) -> None:
        self.ingress, self.app, self.tiers = ingress, app, tiers
        self.seen: list[dict[str, Any]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and scope["path"].startswith(CONTROL):
            answer = await self.control(Request(scope, receive))
            await answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        else:
            await self.recorded(scope, receive, send)

    async def recorded(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode(): value.decode("latin1") for name, value in scope["headers"]}
        known = {name: headers[name] for name in ("user-agent", "upgrade", "originator") if name in headers}
        entry = {"method": scope.get("method", "GET"), "path": scope["path"], "at_s": time.time(), **known}
        self.seen.append(entry)

        async def noted(message: Any) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                entry["status"] = message["status"]
            await send(message)

        await self.app(scope, receive, noted)

    async def control(self, request: Request) -> Response:
        name = request.url.path.removeprefix(CONTROL)
        if name == "forget":
            self.forget()
        return JSONResponse(await self.shown() if name == "seen" else {})

    def forget(self) -> None:
        """Begin anew: an empty record, and circuits closed."""
        self.seen.clear()
        for tier in self.tiers.values():
            tier.bodies.clear()
        breaker: Breaker = self.ingress.answering.breaker
        breaker.circuits.clear()
        breaker.broken.clear()
        breaker.backing_off.clear()

    async def shown(self) -> dict[str, Any]:
        ledger = self.ingress.accounts.ledger
        assert ledger
        await ledger.settled()
        with ledger.engine.connect() as connection:
            tables = {table.name: connection.execute(select(table)) for table in (schema.traces, schema.calls)}
            rows = {name: [dict(row._mapping) for row in found] for name, found in tables.items()}
        return {"requests": self.seen, "bodies": {name: tier.bodies for name, tier in self.tiers.items()}, **rows}


def application(config: Config) -> Recorder:
    tiers = {name: SteeredTier(name) for name in config.names}
    ledger = Ledger(config.ledger)
    accounts = Accounts(Keys(ledger.engine), ledger, tiers={tier.name: tier for tier in config.tiers})
    services = {service.name: EchoService(service) for service in config.services}
    ingress = Ingress(Router(config, None, counters(config)), tiers, accounts, config.server.max_body_bytes, services)
    return Recorder(ingress, ingress.app(), tiers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="where ledger and keys are")
    parser.add_argument("--window", type=int, help="tokens of every tier's window")
    parser.add_argument("--settings", type=json.loads, default={}, help="further sections of the configuration, as JSON")
    given = parser.parse_args()
    config = settings(given.folder, given.settings, given.window)
    keys_of(config, given.folder)
    uvicorn.run(application(config), host="127.0.0.1", port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
