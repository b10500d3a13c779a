"""Throughput with collection on versus off, in one run. Run as: python -m benchmarks.collection [--seconds 3] [--rounds 6]

An ingress over echo tiers with its ledger, in this process and without Ray: what a request costs the ingress, to which a
model's work would only be added. Rounds with and without collection alternate. Prints one JSON line: requests a second of both,
and their ratio, by the medians of the rounds.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from deployments.app import TIERS
from deployments.endpoint.accounts import Accounts
from deployments.endpoint.ingress import Ingress
from deployments.keys.admission import Keys
from deployments.learning.collector import Collector
from deployments.ledger.ledger import Ledger
from router.config import Config
from router.engine import Router

QUESTION = "Which of these words is a river, and why? Answer in one sentence. " * 8
GOAL = 0.97  # of the throughput without


def config_of(folder: Path, collect: str) -> Config:
    tiers = [
        {"name": name, "engine": "echo", "context": 100_000, "price": {"usd_per_1m_input": usd, "usd_per_1m_output": usd}}
        for name, usd in (("small", 1.0), ("large", 10.0))
    ]
    learning = {"collect": collect, "own_key": "all"}
    return Config.model_validate({"tiers": tiers, "learning": learning, "ledger": {"url": f"sqlite:///{folder}/{collect}.db"}})


@asynccontextmanager
async def served(folder: Path, collect: str) -> AsyncIterator[tuple[httpx.AsyncClient, Accounts]]:
    config = config_of(folder, collect)
    ledger, tiers = Ledger(config.ledger), {tier.name: tier for tier in config.tiers}
    keys = Keys(ledger.engine, insecure=True, learning=config.learning.own_key)
    accounts = Accounts(keys, ledger, tiers=tiers, collector=Collector(config.learning, ledger.store, tiers))
    router = Router(config, None, dict.fromkeys(config.names, lambda text: len(text) // 4))
    engines = {tier.name: TIERS[tier.engine].make(tier, None, 5.0, None) for tier in config.tiers}
    app = Ingress(router, engines, accounts, config.server.max_body_bytes).app()
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client, accounts


async def round_of(client: httpx.AsyncClient, seconds: float, clients: int, stream: bool) -> float:
    """Requests a second."""
    until, done = time.perf_counter() + seconds, 0

    async def ask(number: int) -> None:
        nonlocal done
        while time.perf_counter() < until:
            body: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": f"{number} {done} {QUESTION}"}]}
            reply = await client.post("/v1/chat/completions", json={**body, "stream": stream})
            reply.raise_for_status()
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*map(ask, range(clients)))
    return done / (time.perf_counter() - began)


async def measure(seconds: float, rounds: int, clients: int, stream: bool) -> dict[str, Any]:
    rates: dict[str, list[float]] = {"off": [], "consented": []}
    with tempfile.TemporaryDirectory() as folder:
        async with served(Path(folder), "off") as off, served(Path(folder), "consented") as on:
            for turn in range(rounds + 1):
                order = (("off", off), ("consented", on)) if turn % 2 else (("consented", on), ("off", off))
                for name, (client, _) in order:
                    rate = await round_of(client, seconds, clients, stream)
                    if turn:  # the first warms up
                        rates[name].append(rate)
            await asyncio.sleep(1.0)
            kept = on[1].learning()
    off_rate, on_rate = (statistics.median(rates[name]) for name in ("off", "consented"))
    found = {"requests_s_off": round(off_rate, 1), "requests_s_on": round(on_rate, 1), "ratio": round(on_rate / off_rate, 4)}
    return {
        **found,
        "goal": GOAL,
        "stream": stream,
        "clients": clients,
        "rounds": rounds,
        "kept": kept["kept"],
        "dropped": kept["dropped"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one round")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--stream", action="store_true")
    given = parser.parse_args()
    print(json.dumps(asyncio.run(measure(given.seconds, given.rounds, given.clients, given.stream))))


if __name__ == "__main__":
    main()
