"""Sends events of a stream that come close together as one: a message between processes costs more than a token does."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from deployments.lane.frames import Item

EVERY_S = 0.02  # faster than anybody reads; a model that takes longer for a token has each sent by itself


async def batched(items: AsyncIterator[Item], every_s: float = EVERY_S) -> AsyncGenerator[Item]:
    """The first item at once, then whatever has come `every_s` after the last batch; at the end what is left, at once.

    One task reads `items` ahead and is closed with this generator.
    """
    waiting: list[Item] = []
    came = asyncio.Event()

    async def read_ahead() -> None:
        async for item in items:
            waiting.append(item)
            came.set()

    reading = asyncio.create_task(read_ahead())
    reading.add_done_callback(lambda _: came.set())
    try:
        while await came.wait() and (waiting or not reading.done()):
            came.clear()
            taken, waiting[:] = waiting[:], []
            for item in joined(taken):
                yield item
            if not reading.done():
                await asyncio.wait({reading}, timeout=every_s)
            if waiting or reading.done():
                came.set()
        await reading
    finally:
        reading.cancel()
        await asyncio.wait({reading})  # then the engine has stopped


def joined(items: Sequence[Item]) -> list[Item]:
    """One item with the last one's measurement; if one of them is an error, all stay as they are."""
    if len(items) < 2 or any(status != 200 for status, _, _ in items):
        return list(items)
    return [(200, "".join(text for _, text, _ in items), items[-1][2])]
