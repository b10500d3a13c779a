"""A tier with a count of its requests in this process, a circuit breaker, retries and hedged calls around it.

What the tier says is checked here, for every engine, so that a broken answer counts as any other failure does.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar

from deployments.beside_loop import by_length, by_size
from deployments.replicas.replica_health import ReplicaHealth
from deployments.tiers.tier import Tier
from deployments.tiers.tier_answer import TierAnswers
from deployments.traffic.guarded import Guarded
from deployments.traffic.hedged_call import Ask, Drop, raced, stopped
from router.errors import RequestFailed
from router.reasoning_settings import Reasoning
from router.request import thinking
from router.request.wire import MAX_TOKENS
from router.trace import HEDGE, Reading, Twin
from router.traffic.breaker import Breaker
from router.traffic.retries import Retries
from router.traffic.slow_start import Pace, Slow
from router.types import Path

T = TypeVar("T")
Opened = tuple[AsyncGenerator[bytes], bytes]
"""a stream and its first event"""


class Watched(Guarded, Tier):
    """`tier`, watched. `waiting`: calls without a first answer yet; `running`: those that are being answered.

    replicas: upper bound on its replicas; if more than one, another is tried when one is lost before it said anything.
    slow: see `router.traffic.slow_start`. context: the tier's window in tokens; no answer can have used more.
    reasoning: `Tier.thinking` of its settings. idle_s: seconds that a stream may be silent once it has begun; None: for ever.
    """

    def __init__(
        self,
        tier: Tier,
        breaker: Breaker,
        retries: Retries | None = None,
        replicas: int = 1,
        slow: Slow = None,
        context: int = MAX_TOKENS,
        reasoning: Reasoning | None = None,
        idle_s: float | None = None,
    ) -> None:
        super().__init__(tier.name, breaker, retries or Retries(random.random), siblings=replicas > 1)
        self.tier = tier
        self.reasoning = reasoning
        self.answers = TierAnswers(tier.name, context, reasoning, idle_s)
        self.whole = Pace(slow)
        """how long whole answers take"""
        self.begun = Pace(slow)
        """how long streams take to begin"""
        self.waiting = self.running = self.finished = 0
        self.count = replicas
        """replicas that ran at the last count"""

    @property
    def replica_health(self) -> ReplicaHealth | None:
        return self.tier.health

    async def complete(self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = "") -> bytes:
        body = await by_size(thinking.written, body, self.name, self.reasoning)

        async def ask(reading: Reading | None, call_id: str) -> bytes:
            raw = await self.tier.complete(path, body, reading, call_id)
            return await by_length(raw, self.answers.whole, raw, path, body, reading)

        self.running += 1  # from outside, waiting and answering look alike
        try:
            return await self.answered(ask, reading, call_id, self.whole, nothing)
        finally:
            self.running -= 1
            self.finished += 1

    async def stream(
        self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = ""
    ) -> AsyncGenerator[bytes]:
        body = await by_size(thinking.written, body, self.name, self.reasoning)

        def ask(reading: Reading | None, call_id: str) -> Awaitable[Opened]:
            events = self.tier.stream(path, body, reading, call_id)
            return opened(self.answers.stream(events, path, body, reading, self.tier.first_token_s))

        self.waiting += 1
        waits = True
        try:
            events, first = await self.answered(ask, reading, call_id, self.begun, closed)
            waits = False
            self.waiting, self.running = self.waiting - 1, self.running + 1
            async with aclosing(events):
                yield first
                with self.unbroken():
                    async for item in events:
                        yield item
        finally:
            if waits:
                self.waiting -= 1
            else:
                self.running -= 1
                self.finished += 1

    async def answered(self, ask: Ask[T], reading: Reading | None, call_id: str, pace: Pace, drop: Drop[T]) -> T:
        """The answer, or its first part; from a second replica if the first is slow. Raises RequestFailed."""
        self.retries.asked()
        began, slow_s = time.monotonic(), pace.slow_s
        if slow_s is None or reading is None:
            answer = await self.retried(ask, reading, call_id)
        else:
            answer = await self.hedged(ask, reading, call_id, slow_s, drop)
        twin = reading and reading.twin
        pace.took(twin.ended_s if twin else time.monotonic() - began)
        return answer

    async def hedged(self, ask: Ask[T], reading: Reading, call_id: str, slow_s: float, drop: Drop[T]) -> T:
        async def second(twin: Twin) -> T:
            reading.twin = twin
            return await self.tried_once(ask, twin.reading, call_id + HEDGE)

        began = time.monotonic()
        first = asyncio.ensure_future(self.retried(ask, reading, call_id))
        try:
            done, _ = await asyncio.wait({first}, timeout=slow_s)
            if done or not self.retries.may():
                return await first
            answer, twin = await raced(first, second, began, drop)
        except BaseException:
            await stopped([first], drop)
            raise
        if twin.won:
            self.tier.slow(call_id)
        return answer

    @contextmanager
    def unbroken(self) -> Iterator[None]:
        """Report to the breaker whether a stream that has begun comes to its end; one that its client leaves does not count."""
        try:
            yield
        except RequestFailed as error:
            if self.to_blame(error):
                self.breaker.broke(self.name)
            self.tell_operator(error)
            raise
        self.breaker.ended(self.name)

    async def replicas(self) -> int:
        self.count = await self.tier.replicas()
        return self.count

    async def abilities(self) -> Mapping[str, str]:
        return await self.tier.abilities()

    async def close(self) -> None:
        await self.tier.close()


async def nothing(answer: bytes) -> None:
    """A whole answer holds nothing open."""


async def closed(stream: Opened) -> None:
    await stream[0].aclose()


async def opened(events: AsyncGenerator[bytes]) -> Opened:
    """The stream and its first event; the stream is closed if that does not come."""
    try:
        return events, await anext(events, b"")
    except BaseException:
        await events.aclose()
        raise
