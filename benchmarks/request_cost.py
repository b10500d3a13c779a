"""Processor time of a short answer in the ingress: keys, decision, headers and a durable row. `python -m benchmarks.request_cost`

The whole application in this process, called as its server calls it, 16 requests at a time, over tiers that answer at once: no
sockets, no HTTP parser, no upstream. So it moves only with our own code. Prints a JSON line a slice, in milliseconds: `loop_ms`
is the event loop's thread, `process_ms` with the ledger's. --profile shows where it goes. On a busy machine both are larger.
"""

import asyncio
import cProfile
import json
import os
import pstats
import statistics
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import click

from benchmarks.load import KEY, say
from benchmarks.upstream import BODY as ANSWER

AT_ONCE = 16
PRICES = {"small": 0.103, "medium": 0.454, "large": 1.894}
HOST = "127.0.0.1:8000"
CLIENT = {
    "host": HOST,
    "authorization": f"Bearer {KEY}",
    "content-type": "application/json",
    "accept": "application/json",
    "user-agent": "OpenAI/Python 2.9.0",
    "x-stainless-lang": "python",
    "x-request-id": "a-client-s-own-id",
}
"""as OpenAI's client sends them"""


def body_of(n: int) -> bytes:
    """A text of its own for each request: a repeated one may be remembered."""
    text = f"Question {n}: what is {n * 7 % 1013} plus {n * 13 % 997}, and why?"
    return json.dumps({"model": "auto", "messages": [{"role": "user", "content": text}], "max_tokens": 16}).encode()


def price(usd: float) -> dict[str, float]:
    return {"usd_per_1m_input": usd, "usd_per_1m_output": usd}


def application(folder: Path) -> Any:
    """The endpoint over three tiers with the default classifier, a ledger and one key."""
    from deployments.app import routers
    from deployments.endpoint.accounts import Accounts
    from deployments.endpoint.ingress import Ingress
    from deployments.keys.admission import Keys
    from deployments.keys.key_store import hashed
    from deployments.ledger.ledger import Ledger
    from deployments.tiers.tier import Tier
    from router.config import SHIPPED, Config

    class AtOnce(Tier):
        def __init__(self, name: str) -> None:
            self.name = name

        async def complete(self, path: Any, body: Mapping[str, Any], reading: Any = None, call_id: str = "") -> bytes:
            return ANSWER

        async def stream(self, *given: Any) -> AsyncGenerator[bytes]:
            raise NotImplementedError("only whole answers are measured here")
            yield b""

        async def replicas(self) -> int:
            return 1

        async def close(self) -> None:
            return None

    os.environ["STEPDOWN_STATE_DIR"] = str(folder / "state")
    tiers = [{"name": n, "engine": "echo", "context": 8192, "price": price(usd)} for n, usd in PRICES.items()]
    routing = {"artefact": str(SHIPPED.parent / "pocket" / "router"), "target": "balanced"}
    ledger_at = {"url": f"sqlite:///{folder}/ledger.db"}
    config = Config.model_validate({"tiers": tiers, "routing": routing, "ledger": ledger_at})
    ledger = Ledger(config.ledger)
    accounts = Accounts(Keys(ledger.engine, hashed(KEY)), ledger, tiers={tier.name: tier for tier in config.tiers})
    return Ingress(routers(config)(config), {name: AtOnce(name) for name in config.names}, accounts, 1_000_000)


def scope_of(body: bytes) -> dict[str, Any]:
    headers = [(name.encode(), value.encode()) for name, value in CLIENT.items()]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/chat/completions",
        "raw_path": b"/v1/chat/completions",
        "query_string": b"",
        "root_path": "",
        "headers": [*headers, (b"content-length", str(len(body)).encode())],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }


async def asked(app: Any, n: int) -> None:
    body = body_of(n)
    waiting = asyncio.get_running_loop().create_future()
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        return next(messages, None) or await waiting

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start" and message["status"] != 200:
            raise SystemExit(f"request {n} got {message['status']}")

    await app(scope_of(body), receive, send)


async def sliced(app: Any, first: int, requests: int) -> dict[str, float]:
    """Milliseconds of processor time a request."""
    numbers = iter(range(first, first + requests))

    async def worker() -> None:
        for n in numbers:
            await asked(app, n)

    loop_s, process_s = time.thread_time(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    spent = {"loop_ms": time.thread_time() - loop_s, "process_ms": time.process_time() - process_s}
    return {name: round(s * 1e3 / requests, 4) for name, s in spent.items()}


async def measured(requests: int, slices: int, profile: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ingress = application(Path(folder))
        app = ingress.app()
        async with ingress.lifespan(app):
            for thread in threading.enumerate():
                if thread.name == "compile":  # until it has ended, decisions take ten times as long
                    await asyncio.to_thread(thread.join)
            await sliced(app, 0, max(300, requests // 4))
            seen = []
            for n in range(slices):
                seen.append(await sliced(app, (n + 1) * 1_000_000, requests))
                say({"scenario": "request cost, slice", **seen[-1]})
            said = {name: statistics.median(line[name] for line in seen) for name in seen[0]}
            say({"scenario": "request cost", "requests": requests * slices, **said})
            if profile:
                with cProfile.Profile(time.thread_time) as profiler:
                    await sliced(app, 10**9, requests)
                pstats.Stats(profiler).sort_stats("tottime").print_stats(45)


@click.command(help=__doc__)
@click.option("--requests", default=4_000, show_default=True, help="Of each slice.")
@click.option("--slices", default=5, show_default=True)
@click.option("--profile", is_flag=True, help="Show the functions that cost most, under cProfile, which doubles the cost.")
def main(requests: int, slices: int, profile: bool) -> None:
    work = measured(requests, slices, profile)
    try:
        import uvloop
    except ModuleNotFoundError:  # uvicorn brings it, except on Windows
        asyncio.run(work)
    else:
        uvloop.run(work)


if __name__ == "__main__":
    main()
