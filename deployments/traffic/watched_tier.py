"""A tier with a count of its requests in this process, a circuit breaker, retries and hedged calls around it.

What the tier says is checked here, for every engine, so that a broken answer counts as any other failure does.
"""

import asyncio
import logging
import math
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar

from deployments.beside_loop import by_length
from deployments.tiers.tier import Tier
from deployments.tiers.tier_answer import TierAnswers
from deployments.traffic.hedged_call import Ask, Drop, raced, stopped
from router.errors import NoReplica, RequestFailed, TierBusy, TierFailed, TierMisconfigured
from router.request.wire import MAX_TOKENS
from router.trace import HEDGE, Reading, Twin
from router.traffic.breaker import Breaker
from router.traffic.retries import Retries
from router.traffic.slow_start import Pace, Slow
from router.types import Path

log = logging.getLogger("stepdown")
TELL_AGAIN_S = 60.0  # between two lines of the log on what to mend at one tier

T = TypeVar("T")
Opened = tuple[AsyncGenerator[bytes], bytes]
"""a stream and its first event"""


def down(error: RequestFailed) -> bool:
    """The tier cannot answer, so another may; a request's own fault is no such failure."""
    return isinstance(error, NoReplica | TierFailed) and error.status >= 500


def lost(error: RequestFailed) -> bool:
    """One replica failed; another of the tier may answer."""
    return down(error) and (not isinstance(error, NoReplica) or error.lost)


class Watched(Tier):
    """`tier`, watched. `waiting`: calls without a first answer yet; `running`: those that are being answered.

    replicas: upper bound on its replicas; if more than one, another is tried when one is lost before it said anything.
    slow: see `router.traffic.slow_start`. context: the tier's window in tokens; no answer can have used more. idle_s: seconds
    that a stream may be silent once it has begun; None: for ever.
    """

    def __init__(
        self,
        tier: Tier,
        breaker: Breaker,
        retries: Retries | None = None,
        replicas: int = 1,
        slow: Slow = None,
        context: int = MAX_TOKENS,
        idle_s: float | None = None,
    ) -> None:
        self.name, self.tier, self.breaker = tier.name, tier, breaker
        self.answers = TierAnswers(tier.name, context, idle_s)
        self.retries, self.siblings = retries or Retries(random.random), replicas > 1
        self.whole = Pace(slow)
        """how long whole answers take"""
        self.begun = Pace(slow)
        """how long streams take to begin"""
        self.waiting = self.running = self.finished = 0
        self.told_s = -TELL_AGAIN_S
        """when the log was told last what to mend, by time.monotonic"""
        self.count = replicas
        """replicas that ran at the last count"""

    async def complete(self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = "") -> bytes:
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

    async def retried(self, ask: Ask[T], reading: Reading | None, call_id: str) -> T:
        """The answer; from another replica if one is lost before it said anything."""
        try:
            return await self.tried_once(ask, reading, call_id)
        except RequestFailed as error:
            if not (self.siblings and lost(error) and self.retries.may()):
                raise
        await asyncio.sleep(self.retries.wait_s())
        return await self.tried_once(ask, reading, call_id)

    async def tried_once(self, ask: Ask[T], reading: Reading | None, call_id: str) -> T:
        with self.guarded():
            answer = await ask(reading, call_id)
        self.breaker.worked(self.name)
        return answer

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Report failures that are the tier's to the breaker. Raises NoReplica at once while no request should be sent."""
        if resting := self.resting():
            raise resting
        self.breaker.sent(self.name)
        try:
            yield
        except RequestFailed as error:
            if self.to_blame(error):
                self.breaker.failed(self.name)
            elif isinstance(error, TierBusy) or not down(error):
                self.breaker.worked(self.name)
            if isinstance(error, TierBusy):
                self.breaker.back_off(self.name, error.told_s)
            self.tell_operator(error)
            raise

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

    def resting(self) -> NoReplica | None:
        """The error for a request while none should be sent; None: send."""
        if not (left_s := self.breaker.left_s(self.name)):
            return None
        kind = NoReplica if self.breaker.open_s(self.name) else TierBusy
        return kind(self.name, self.breaker.why(self.name), retry_after_s=math.ceil(left_s))

    def to_blame(self, error: RequestFailed) -> bool:
        """Whether the tier as a whole failed. While some replicas are known to be well, a lost one is not the tier."""
        return down(error) and not isinstance(error, TierBusy) and not (lost(error) and self.some_well())

    def tell_operator(self, error: RequestFailed) -> None:
        """Write into the log what the operator has to mend, once in a while."""
        if isinstance(error, TierMisconfigured) and time.monotonic() >= self.told_s + TELL_AGAIN_S:
            self.told_s = time.monotonic()
            log.error(error.mend)

    def some_well(self) -> bool:
        """Whether some replicas are known to be well: then a failure is not the tier's."""
        return self.siblings and self.tier.health is not None and self.tier.health.some_well()

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
