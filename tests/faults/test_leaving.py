"""A client leaves at each turn of the event loop in which its request could be: no call runs on, and each is written down."""

import asyncio
import gc
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
from live import OneFlow, ladder
from planning import PLANNING
from scripted_tier import Said, ScriptedTier, asked

from deployments.endpoint.accounts import Accounts, without_books
from deployments.endpoint.ingress import Ingress
from router.cascade.flow import Cascade
from router.cascade.race import Race
from router.config import Escalation
from router.engine import Router
from router.trace import Trace
from router.types import Accept, GoUp

pytestmark = pytest.mark.slow

TASK = "Do each of these:\n" + "\n".join(f"{n}. Summarise report number {n} in one line." for n in range(1, 4))


class Sure:
    """The smallest tier's answer is never good enough."""

    def next(self, answers):
        return GoUp(("large",), "low confidence") if list(answers) == ["small"] else Accept("large")


def plain() -> Router:
    return Router(ladder(), None, dict.fromkeys(("small", "medium", "large"), lambda text: len(text.split())))


def cascade(mode):
    def make(router, request, decided):
        settings = Escalation(mode=mode, holdback_tokens=2)
        return Cascade(request.body, router.names, Sure(), settings, request.stream).run(["small"])

    return lambda: OneFlow(ladder(), make)


def race() -> Router:
    return OneFlow(ladder(), lambda router, request, decided: Race(request.body, ("small", "large"), 0.0).run())


def delegation() -> Router:
    config = ladder(delegation=PLANNING)
    return Router(config, None, dict.fromkeys(config.names, lambda text: len(text.split())))


def says(body) -> Said:
    if (body.get("response_format") or {}).get("json_schema", {}).get("name") == "plan":
        return Said('{"plan": [{"each": "c1"}]}' if asked(body).startswith("plan") else '{"plan": []}')
    return Said("four five six")


ROUTERS = {"direct": plain, "buffer": cascade("buffer"), "holdback": cascade("holdback"), "race": race, "delegation": delegation}


# But for a plain call that is not streamed: without_books listens for the message then, and Ray Serve cancels the request.
CASES = [case for case in product(ROUTERS, [False, True], ["told", "cancelled"]) if case != ("direct", False, "told")]


class Connection:
    """One request to the endpoint in this process, and its client."""

    def __init__(self, make: Any, stream: bool) -> None:
        self.router = make()
        self.tiers = {name: ScriptedTier(name, says) for name in self.router.names}
        self.traces: list[Trace] = []
        self.left = asyncio.Event()
        self.body = json.dumps({"model": "auto", "stream": stream, "messages": [{"role": "user", "content": TASK}]}).encode()
        self.given = False
        self.task = asyncio.create_task(self.ask())

    def accounts(self) -> Accounts:
        async def record(trace: Trace, grant: Any) -> None:
            self.traces.append(trace)

        made = without_books()
        made.finish = record  # type: ignore[method-assign]
        return made

    async def ask(self) -> None:
        app = Ingress(self.router, self.tiers, self.accounts(), 1_000_000).app()
        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/v1/chat/completions"}
        scope |= {"headers": headers, "query_string": b""}
        with suppress(asyncio.CancelledError):
            await app(scope, self.receive, self.send)

    async def receive(self) -> dict[str, Any]:
        if not self.given:
            self.given = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        await asyncio.sleep(0)

    def leave(self, how: str) -> None:
        """As a client's end is told: by ASGI's message, or as Ray Serve does, which besides cancels the request."""
        self.left.set()
        if how == "cancelled":
            self.task.cancel()

    def calls(self) -> list[str]:
        return [call.outcome for trace in self.traces for call in trace.calls]

    def too_well(self) -> list[str]:
        """Tiers of which more calls are written as answered than it answered."""
        said = Counter(call.tier for trace in self.traces for call in trace.calls if call.outcome == "answered")
        return [name for name, tier in self.tiers.items() if said[name] > len(tier.bodies) - tier.given_up]


async def turns(n: int) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def left_after(n: int, make: Any, stream: bool, how: str) -> str | None:
    """What is wrong afterwards; None: its answer was whole before that."""
    connection = Connection(make, stream)
    await turns(n)
    if connection.task.done():
        return None
    connection.leave(how)
    await turns(60)
    running = sorted(name for name, tier in connection.tiers.items() if tier.running)
    await asyncio.wait({connection.task})
    begun = sum(len(tier.bodies) for tier in connection.tiers.values())
    if running:
        return f"after {n} turns: {running} go on"
    if len(connection.calls()) != begun or len(connection.traces) > 1:
        return f"after {n} turns: {begun} calls begun, written: {connection.calls()}"
    if connection.too_well():
        return f"after {n} turns: written as answered though cut off: {connection.too_well()}"
    return ""


@pytest.fixture(autouse=True)
def by_turns(monkeypatch) -> Iterator[None]:
    """Tiers take turns, not time. What the garbage collector closes in the end has run on until then: there is none."""
    monkeypatch.setattr("scripted_tier.asyncio", SimpleNamespace(sleep=lambda seconds: turns(3)))
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize(("name", "stream", "how"), CASES)
def test_whenever_a_client_leaves_nothing_runs_on(name, stream, how):
    async def run() -> list[str]:
        found: list[str] = []
        while (wrong := await left_after(len(found), ROUTERS[name], stream, how)) is not None:
            found.append(wrong)
        return found

    found = asyncio.run(run())
    assert len(found) > 8 and [wrong for wrong in found if wrong] == []
