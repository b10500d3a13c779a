"""Events of a stream that come close together, sent as one: each message between processes costs more than a token does."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from deployments.lane.frames import Shown

EVERY_S = 0.02  # faster than anybody reads; a model that takes longer for a token has each sent by itself


async def gathered(items: AsyncIterator[Shown], every_s: float = EVERY_S) -> AsyncGenerator[Shown]:
    """The first at once, then all that has come, every_s after the last; what is left as soon as there is no more.

    `items` is read ahead by one task, and is closed with this generator.
    """
    waiting: list[Shown] = []
    came = asyncio.Event()

    async def read() -> None:
        async for item in items:
            waiting.append(item)
            came.set()

    reading = asyncio.create_task(read())
    reading.add_done_callback(lambda _: came.set())
    try:
        while await came.wait() and (waiting or not reading.done()):
            came.clear()
            taken, waiting[:] = waiting[:], []
            for shown in joined(taken):
                yield shown
            if not reading.done():
                await asyncio.wait({reading}, timeout=every_s)
            if waiting or reading.done():
                came.set()
        await reading
    finally:
        reading.cancel()
        await asyncio.wait({reading})  # the engine has stopped


def joined(items: Sequence[Shown]) -> list[Shown]:
    """One, with the last one's reading; an error among them stays by itself."""
    if len(items) < 2 or any(status != 200 for status, _, _ in items):
        return list(items)
    return [(200, "".join(text for _, text, _ in items), items[-1][2])]
