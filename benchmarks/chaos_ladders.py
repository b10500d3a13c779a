"""The ladders of benchmarks/chaos.py. Each knows the correct answer to a prompt.

echo: one tier in the ingress, and two behind URLs of processes that the benchmark may kill; calls to one of these are hedged when
it is slow. The correct answer repeats the request.
pocket: the shipped ladder on vLLM. The correct answer is its tier's to the same prompt at temperature 0, before any fault.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import httpx
import yaml
from sqlalchemy import Engine, create_engine

NAMES = ("small", "medium", "large")
HEDGED = "medium"
SLOW_S, LATE_S, HEDGE_AFTER_S = 5.0, 8.0, 0.8  # how long it is slow, by how much, and after what time a second call goes out
WORDS = "alpha bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike november oscar papa".split()


class Ladder:
    """A folder with a configuration and a ledger, and what is known of it."""

    def __init__(self) -> None:
        self.temporary = TemporaryDirectory(prefix="stepdown-chaos-")
        self.folder = Path(self.temporary.name)
        self.config, self.ledger = self.folder / "ladder.yaml", self.folder / "ledger.db"

    def __enter__(self) -> "Ladder":
        self.config.write_text(yaml.safe_dump(self.settings()))
        return self

    def __exit__(self, *_: object) -> None:
        self.temporary.cleanup()

    def settings(self) -> dict[str, Any]:
        raise NotImplementedError

    def common(self) -> dict[str, Any]:
        server = {"replicas": 2, "request_timeout_s": 40, "body_timeout_s": 10, "drain_s": 10}
        return {"server": server, "ledger": {"url": f"sqlite:///{self.ledger}"}}

    @contextmanager
    def served(self) -> Iterator[tuple[str, str]]:
        from deployments.serve.background import served

        os.environ["STEPDOWN_STATE_DIR"] = str(self.folder / "state")
        with served(str(self.config)) as address:
            yield address

    def engine(self) -> Engine:
        return create_engine(f"sqlite:///{self.ledger}")

    async def learn(self, url: str, key: str) -> None:
        """Before anything is broken."""

    def body(self, chance: random.Random) -> dict[str, Any]:
        raise NotImplementedError

    def right(self, body: dict[str, Any], tier: str) -> str:
        raise NotImplementedError

    def may(self, body: dict[str, Any]) -> tuple[str, ...]:
        """Who may answer: the tier that was asked for, or anyone."""
        return NAMES if body["model"] == "auto" else (body["model"],)


class Echo(Ladder):
    def __enter__(self) -> "Echo":
        from deployments.serve.background import free_port

        self.ports = {name: free_port() for name in NAMES[1:]}
        self.upstreams: dict[str, subprocess.Popen[bytes]] = {}
        super().__enter__()
        for name in self.ports:
            self.start(name)
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self.upstreams.values():
            process.kill()
            process.wait()
        super().__exit__(*exception)

    def settings(self) -> dict[str, Any]:
        price = {n: {"usd_per_1m_input": p, "usd_per_1m_output": p} for n, p in zip(NAMES, (1.0, 5.0, 20.0), strict=True)}
        small = {"name": "small", "engine": "echo", "context": 10_000, "delay_s": 0.01, "price": price["small"]}
        others = [
            {
                "name": n,
                "engine": "remote",
                "url": f"http://127.0.0.1:{port}/v1",
                "model": f"upstream-{n}",
                "context": 10_000,
                "price": price[n],
                "hedge_after_s": HEDGE_AFTER_S if n == HEDGED else None,
            }
            for n, port in self.ports.items()
        ]
        return {"tiers": [small, *others], **self.common()}

    def start(self, name: str) -> None:
        command = [sys.executable, "-m", "benchmarks.chaos_ladders", f"upstream-{name}", str(self.ports[name])]
        self.upstreams[name] = subprocess.Popen(command)
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                httpx.get(f"http://127.0.0.1:{self.ports[name]}/", timeout=1)
                return
            except httpx.HTTPError:
                time.sleep(0.1)

    def kill(self, name: str) -> None:
        self.upstreams[name].send_signal(signal.SIGKILL)
        self.upstreams[name].wait()

    def body(self, chance: random.Random) -> dict[str, Any]:
        text = f"{chance.getrandbits(48):x} " + " ".join(chance.choices(WORDS, k=chance.randint(1, 30)))
        model = chance.choice(["auto", "auto", "auto", *NAMES])
        return {"model": model, "stream": chance.random() < 0.5, "messages": [{"role": "user", "content": text}]}

    def right(self, body: dict[str, Any], tier: str) -> str:
        return str(body["messages"][0]["content"])


class Pocket(Ladder):
    """`learn` asks each tier each prompt once."""

    def settings(self) -> dict[str, Any]:
        from router.config import SHIPPED

        text = (SHIPPED / "pocket.yaml").read_text().replace("../pocket", str(SHIPPED.parent / "pocket"))
        return {**yaml.safe_load(text), **self.common()}

    async def learn(self, url: str, key: str, n: int = 40) -> None:
        from deployments.pocket.tasks import fresh

        self.known: dict[tuple[str, str], str] = {}
        self.prompts = [task.prompt for task in fresh("single", n, 6)]
        async with httpx.AsyncClient(timeout=120, headers={"authorization": f"Bearer {key}"}) as client:
            for prompt in self.prompts:
                for tier in NAMES:
                    asked = {"model": tier, "temperature": 0, "messages": [{"role": "user", "content": prompt}]}
                    answer = (await client.post(f"{url}/chat/completions", json=asked)).json()
                    self.known[tier, prompt] = answer["choices"][0]["message"]["content"]

    def body(self, chance: random.Random) -> dict[str, Any]:
        asked = [{"role": "user", "content": chance.choice(self.prompts)}]
        model = chance.choice(["auto", "auto", "auto", *NAMES])
        return {"model": model, "stream": chance.random() < 0.5, "temperature": 0, "messages": asked}

    def right(self, body: dict[str, Any], tier: str) -> str:
        return self.known.get((tier, body["messages"][0]["content"]), "")


LADDERS = {"echo": Echo, "pocket": Pocket}


@click.command()
@click.argument("name")
@click.argument("port", type=int)
def upstream(name: str, port: int) -> None:
    """A server of somebody else's: says back what it is asked. After SIGUSR1 it is slow with every second request for a while."""
    import asyncio
    from itertools import count

    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response, StreamingResponse
    from starlette.routing import Route

    from deployments.tiers.echo_tier import EchoTier
    from router.config import EchoTier as Settings

    price = {"usd_per_1m_input": 1.0, "usd_per_1m_output": 1.0}
    settings = {"name": name, "engine": "echo", "context": 10_000, "delay_s": 0.01, "price": price}
    tier = EchoTier(Settings.model_validate(settings))

    slow_until, turn = 0.0, count()

    def slow(*_: object) -> None:
        nonlocal slow_until
        slow_until = time.monotonic() + SLOW_S

    async def chat(request: Request) -> Response:
        body = await request.json()
        if time.monotonic() < slow_until and next(turn) % 2 == 0:
            await asyncio.sleep(LATE_S)
        if body.get("stream"):
            return StreamingResponse(tier.stream("chat/completions", body), media_type="text/event-stream")
        return Response(await tier.complete("chat/completions", body), media_type="application/json")

    signal.signal(signal.SIGUSR1, slow)
    app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="critical")


if __name__ == "__main__":
    upstream()
