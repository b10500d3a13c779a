"""One client must not close a tier: an error 500 of a server that had to follow the client's form is held against nobody."""

import asyncio
import random
import time
from typing import Any

import pytest

from deployments.tiers.faults import failure
from deployments.tiers.tier import Tier
from deployments.traffic.watched_tier import Watched
from router.errors import NoReplica, RequestFailed
from router.traffic.breaker import Breaker

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
FORM = {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}}


class Fails(Tier):
    """Its server answers each call with this status."""

    name = "large"

    def __init__(self, status: int) -> None:
        self.status = status

    async def complete(self, path: Any, body: Any, reading: Any = None, call_id: str = "") -> bytes:
        raise failure(self.name, self.status, b"")

    async def stream(self, path: Any, body: Any, reading: Any = None, call_id: str = "") -> Any:
        raise failure(self.name, self.status, b"")
        yield b""


def after(status: int, body: dict[str, Any], stream: bool, times: int = 5) -> float:
    """Seconds for which the tier's circuit is open after so many failures."""
    breaker = Breaker(time.monotonic, random.random)
    tier = Watched(Fails(status), breaker)

    async def ask() -> None:
        for _ in range(times):
            with pytest.raises(RequestFailed):
                await (anext(tier.stream("chat/completions", body)) if stream else tier.complete("chat/completions", body))

    asyncio.run(ask())
    return breaker.open_s("large")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("asked", [FORM, {"structured_outputs": {"regex": "a"}}, {"tool_choice": "required"}])
def test_a_crash_on_a_demanded_form_opens_no_circuit(asked: dict[str, Any], stream: bool) -> None:
    assert after(500, {**CHAT, **asked}, stream) == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status, asked", [(500, {}), (502, FORM), (503, FORM)])
def test_other_failures_do(status: int, asked: dict[str, Any], stream: bool) -> None:
    assert after(status, {**CHAT, **asked}, stream) > 0


def test_the_client_of_a_crash_is_told_of_it() -> None:
    with pytest.raises(RequestFailed) as found:
        asyncio.run(Watched(Fails(500), Breaker(time.monotonic, random.random)).complete("chat/completions", {**CHAT, **FORM}))
    assert found.value.status == 502 and not isinstance(found.value, NoReplica)
