"""Throughput with collection on versus off, in one run. Run as: python -m benchmarks.collection [--requests 300] [--rounds 8]

An ingress over echo tiers with its ledger, called in this process without a server, a client library or Ray: what a request costs
the ingress alone, so that any share of it shows. Rounds with and without collection alternate. Prints one JSON line: requests a
second of both and their ratio, then CPU milliseconds a request of the whole process, its threads included, and their ratio, which
other work on the machine disturbs less. Both by the medians of the rounds.
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

from starlette.applications import Starlette

from deployments.app import TIERS
from deployments.endpoint.accounts import Accounts
from deployments.endpoint.ingress import Ingress
from deployments.keys.admission import Keys
from deployments.learning.kept.collector import Collector
from deployments.ledger.ledger import Ledger
from router.config import Config
from router.engine import Router

QUESTION = "Which of these words is a river, and why? Answer in one sentence. " * 8
GOAL = 0.97  # of the throughput without
HEADERS = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
SCOPE = {"type": "http", "http_version": "1.1", "method": "POST", "query_string": b"", "server": ("127.0.0.1", 80)}


def config_of(folder: Path, collect: str) -> Config:
    tiers = [
        {"name": name, "engine": "echo", "context": 100_000, "price": {"usd_per_1m_input": usd, "usd_per_1m_output": usd}}
        for name, usd in (("small", 1.0), ("large", 10.0))
    ]
    learning = {"collect": collect, "own_key": "all"}
    return Config.model_validate({"tiers": tiers, "learning": learning, "ledger": {"url": f"sqlite:///{folder}/{collect}.db"}})


@asynccontextmanager
async def served(folder: Path, collect: str) -> AsyncIterator[tuple[Starlette, Accounts]]:
    config = config_of(folder, collect)
    ledger, tiers = Ledger(config.ledger), {tier.name: tier for tier in config.tiers}
    keys = Keys(ledger.engine, insecure=True, learning=config.learning.own_key)
    accounts = Accounts(keys, ledger, tiers=tiers, collector=Collector(config.learning, ledger.store, tiers))
    router = Router(config, None, dict.fromkeys(config.names, lambda text: len(text) // 4))
    engines = {tier.name: TIERS[tier.engine].make(tier, None, 5.0, None) for tier in config.tiers}
    app = Ingress(router, engines, accounts, config.server.max_body_bytes).app()
    async with app.router.lifespan_context(app):
        yield app, accounts


async def ask(app: Starlette, body: bytes) -> None:
    sent = iter([{"type": "http.request", "body": body, "more_body": False}])
    statuses = []

    async def receive() -> Any:
        if found := next(sent, None):
            return found
        return await asyncio.get_running_loop().create_future()  # the client stays

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    path = "/v1/chat/completions"
    await app({**SCOPE, "path": path, "raw_path": path.encode(), "headers": HEADERS, "client": ("127.0.0.1", 1)}, receive, send)
    if statuses != [200]:
        raise RuntimeError(f"found status {statuses}, expected 200")


async def round_of(app: Starlette, requests: int, clients: int, stream: bool) -> tuple[float, float]:
    """Requests a second, and CPU milliseconds a request."""
    left = iter(range(requests))

    async def client(number: int) -> None:
        for n in left:
            messages = [{"role": "user", "content": f"{number} {n} {QUESTION}"}]
            await ask(app, json.dumps({"model": "auto", "messages": messages, "stream": stream}).encode())

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*map(client, range(clients)))
    await asyncio.sleep(0.3)  # for what is written beside the requests: its work counts, this pause does not
    return requests / (time.perf_counter() - began - 0.3), (time.process_time() - cpu) * 1e3 / requests


async def measure(requests: int, rounds: int, clients: int, stream: bool) -> dict[str, Any]:
    found: dict[str, list[tuple[float, float]]] = {"off": [], "consented": []}
    with tempfile.TemporaryDirectory() as folder:
        async with served(Path(folder), "off") as off, served(Path(folder), "consented") as on:
            for turn in range(rounds + 1):
                order = (("off", off), ("consented", on)) if turn % 2 else (("consented", on), ("off", off))
                for name, (app, _) in order:
                    one = await round_of(app, requests, clients, stream)
                    if turn:  # the first warms up
                        found[name].append(one)
            await asyncio.sleep(1.0)
            kept = on[1].learning()
    rate_off, cpu_off, rate_on, cpu_on = (statistics.median(both) for name in found for both in zip(*found[name], strict=True))
    rates = {"requests_s_off": round(rate_off, 1), "requests_s_on": round(rate_on, 1), "ratio": round(rate_on / rate_off, 4)}
    cpu = {"cpu_ms_off": round(cpu_off, 3), "cpu_ms_on": round(cpu_on, 3), "cpu_ratio": round(cpu_off / cpu_on, 4)}
    about = {"goal": GOAL, "stream": stream, "clients": clients, "requests": requests, "rounds": rounds}
    return {**rates, **cpu, **about, "kept": kept["kept"], "dropped": kept["dropped"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=300, help="of one round")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--stream", action="store_true")
    given = parser.parse_args()
    print(json.dumps(asyncio.run(measure(given.requests, given.rounds, given.clients, given.stream))))


if __name__ == "__main__":
    main()
