"""A call to a replica that is given up at each turn of the event loop, through Ray Serve's own response generator."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator

import pytest
from ray.serve._private.common import RequestMetadata
from ray.serve.handle import DeploymentResponseGenerator

from deployments.tiers.serve_tier import CallPolicy, ServeTier

BODY = {"model": "it", "messages": [{"role": "user", "content": "one two"}]}


async def turns(n: int) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


class Sent:
    """A call that reached a replica, as Serve's `gRPCReplicaResult`: it runs until it is over or is cancelled."""

    def __init__(self) -> None:
        self.running = True
        self.items = self.said()

    async def said(self) -> AsyncIterator[tuple[int, str, str]]:
        for n in range(3):
            await turns(2)
            yield 200, json.dumps({"n": n}), ""
        self.running = False

    async def __anext__(self) -> tuple[int, str, str]:
        try:
            return await anext(self.items)
        except asyncio.CancelledError:
            self.cancel()
            raise

    def cancel(self) -> None:
        self.running = False


class Handle:
    """Chooses a replica and sends the call, as Serve's router does on the loop of its caller."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []

    def options(self, **_):
        return self

    def remote(self, *_) -> DeploymentResponseGenerator:
        asked = RequestMetadata(request_id="r", internal_request_id="i", is_streaming=True)
        return DeploymentResponseGenerator(asyncio.create_task(self.assigned()), asked, _is_router_running_in_separate_loop=False)

    async def assigned(self) -> Sent:
        await turns(2)
        self.sent.append(Sent())
        try:
            await turns(2)  # until the replica has accepted it
        except asyncio.CancelledError:
            self.sent[-1].cancel()
            raise
        return self.sent[-1]


async def one() -> int:
    return 1


async def asked(tier: ServeTier, stream: bool) -> None:
    if stream:
        async for _ in tier.stream("chat/completions", BODY):
            pass
    else:
        await tier.complete("chat/completions", BODY)


@pytest.mark.parametrize("stream", [False, True])
def test_whenever_a_call_is_given_up_its_replica_stops(stream):
    async def left_after(n: int) -> bool | None:
        """Whether the replica works on; None: the call was over before that."""
        handle = Handle()
        asking = asyncio.create_task(asked(ServeTier("it", handle, one, CallPolicy(5.0)), stream))
        await turns(n)
        if asking.done():
            return None
        asking.cancel()
        await turns(40)
        assert asking.cancelled()
        return any(sent.running for sent in handle.sent)

    async def run() -> list[bool]:
        found: list[bool] = []
        while (on := await left_after(len(found))) is not None:
            found.append(on)
        return found

    gc.disable()
    try:
        found = asyncio.run(run())
    finally:
        gc.enable()
    assert len(found) > 6 and not any(found), found
