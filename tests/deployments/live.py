"""A real HTTP server in a thread over scripted tiers, for clients as they are."""

import contextlib
import functools
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import uvicorn

from deployments.endpoint.accounts import Accounts
from deployments.endpoint.ingress import Ingress
from router.config import Config
from router.engine import Router
from router.trace import FlowKind
from router.types import Chosen, Decision, Flow, Request

PRICES = {"small": 1.0, "medium": 4.0, "large": 20.0}
FlowMaker = Callable[[Router, Request, Decision], Flow | None]


def ladder(names=("small", "medium", "large"), **sections) -> Config:
    price = {n: {"usd_per_1m_input": PRICES[n], "usd_per_1m_output": PRICES[n]} for n in names}
    tiers = [{"name": n, "engine": "echo", "context": 100_000, "price": price[n]} for n in names]
    return Config.model_validate({"tiers": tiers, **sections})


class OneFlow(Router):
    """A router whose every `auto` request takes the flow that the test gives."""

    def __init__(
        self,
        config: Config,
        make: FlowMaker,
        count: Callable[[str], int] = lambda text: len(text.split()),
        kind: FlowKind = "cascade",
    ) -> None:
        super().__init__(config, None, dict.fromkeys(config.names, count))
        self.make = make
        self.kind = kind

    def flow(self, asked: Request, decided: Decision) -> Chosen:
        steps = self.make(self, asked, decided) if decided.target in ("balanced", "cheap", "quality") else None
        return Chosen(self.kind, steps) if steps else Chosen("direct")


Served = Callable[[Any, Any, Any], Any]


@contextlib.contextmanager
def listening(app: Served, **how: Any) -> Iterator[int]:
    """The port of a server in a thread; `app` is opened before and closed after. how: further settings of uvicorn."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", **how))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join(timeout=10)


class Stage:
    """One server for the whole run, with an application for each test: to start and stop one takes longer than most tests."""

    def __init__(self) -> None:
        self.apps: dict[str, Served] = {}
        self.server = listening(self)  # lives as long as this object, a daemon to the end of the run
        self.port = self.server.__enter__()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The first part of the path names the application."""
        if scope["type"] == "lifespan":
            return
        name, _, rest = scope["path"].removeprefix("/").partition("/")
        await self.apps[name]({**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode()}, receive, send)


stage = functools.cache(Stage)


@contextlib.contextmanager
def serving(router: Router, tiers: Mapping, accounts: Accounts | None = None, services: Mapping | None = None) -> Iterator[str]:
    """The endpoint's address, up to /v1."""
    app = Ingress(router, tiers, accounts, 32_000_000, services).app()
    if accounts is not None:  # to be opened and closed
        with listening(app) as port:
            yield f"http://127.0.0.1:{port}/v1"
        return
    name = uuid.uuid4().hex
    stage().apps[name] = app
    yield f"http://127.0.0.1:{stage().port}/{name}/v1"
