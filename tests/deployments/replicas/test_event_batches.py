"""Events of a stream that come close together are one message; none waits for long, and none is lost."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from deployments.lane.frames import Item
from deployments.replicas.event_batches import batched

LONG = 30.0


def ok(text: str, reading: str = "") -> Item:
    return 200, text, reading


async def said(*items: Item | asyncio.Event) -> AsyncIterator[Item]:
    """These, waiting for events among them."""
    for item in items:
        if isinstance(item, asyncio.Event):
            await item.wait()
        else:
            await asyncio.sleep(0)
            yield item


async def all_of(items: AsyncIterator[Item]) -> list[Item]:
    return [item async for item in items]


def test_the_first_is_sent_at_once_and_the_others_together():
    async def go():
        more = asyncio.Event()
        stream = batched(said(ok("a"), more, ok("b"), ok("c"), ok("d", "read")), LONG)
        assert await asyncio.wait_for(anext(stream), 5) == ok("a")
        more.set()
        return await asyncio.wait_for(all_of(stream), 5)  # the end does not wait

    assert asyncio.run(go()) == [ok("bcd", "read")]


def test_what_comes_slowly_is_sent_by_itself():
    async def go():
        gates = [asyncio.Event() for _ in range(3)]
        stream = batched(said(ok("a"), gates[0], ok("b"), gates[1], ok("c"), gates[2]), 0.01)
        seen = [await anext(stream)]
        for gate in gates[:2]:
            await asyncio.sleep(0.03)
            gate.set()
            seen.append(await asyncio.wait_for(anext(stream), 5))
        gates[2].set()
        return seen, await all_of(stream)

    assert asyncio.run(go()) == ([ok("a"), ok("b"), ok("c")], [])


def test_nothing_is_lost_or_turned_round_whatever_the_pace():
    async def slowly():
        for n in range(300):
            if n % 7 == 0:
                await asyncio.sleep(0.0005)
            yield ok(f"{n},")

    found = asyncio.run(all_of(batched(slowly(), 0.003)))
    assert "".join(text for _, text, _ in found) == "".join(f"{n}," for n in range(300))
    assert len(found) < 300


def test_an_error_is_not_joined_with_what_came_before():
    items = [ok("a"), ok("b"), (500, "bad", "read")]
    found = asyncio.run(all_of(batched(said(*items), LONG)))
    assert found == items


def test_a_failure_comes_after_what_came_before_it():
    async def failing():
        yield ok("a")
        yield ok("b")
        raise ValueError("engine")

    async def go():
        seen = []
        with pytest.raises(ValueError, match="engine"):
            async for item in batched(failing(), LONG):
                seen.append(item)
        return "".join(text for _, text, _ in seen)

    assert asyncio.run(go()) == "ab"


@pytest.mark.parametrize("how", ["closed", "cancelled"])
def test_who_leaves_ends_the_engines_work_at_once(how):
    ended = []

    async def endless():
        try:
            while True:
                yield ok("x")
                await asyncio.sleep(0.001)
        finally:
            ended.append(time.monotonic())

    async def go():
        stream = batched(endless(), 0.005)
        await anext(stream)
        if how == "closed":
            await stream.aclose()
        else:
            task = asyncio.create_task(all_of(stream))
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await stream.aclose()
        return len(ended)

    assert asyncio.run(go()) == 1
