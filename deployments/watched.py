"""A tier and how much of it is in use by this process: what the status page shows and what the choice of a tier may see."""

import asyncio
import math
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar

from deployments.tier import Tier
from router.breaker import Breaker
from router.errors import NoReplica, RequestFailed, TierFailed
from router.retries import Retries
from router.trace import Reading
from router.types import Path

T = TypeVar("T")


def down(error: RequestFailed) -> bool:
    """The tier's own failure, which another tier may not have; a full queue is not one."""
    return isinstance(error, NoReplica | TierFailed) and error.status >= 500


def lost(error: RequestFailed) -> bool:
    """One replica's failure, which its siblings may not share."""
    return down(error) and getattr(error, "lost", True)


class Watched:
    """The same tier. `waiting`: calls without a first answer yet; `running`: those that are being answered.

    replicas: that it may have. Of more than one, a sibling is tried where a replica is lost before it said anything.
    """

    def __init__(self, tier: Tier, breaker: Breaker, retries: Retries | None = None, replicas: int = 1) -> None:
        self.name, self.tier, self.breaker = tier.name, tier, breaker
        self.retries, self.siblings = retries or Retries(random.random), replicas > 1
        self.waiting = self.running = self.finished = 0
        self.count = replicas
        """replicas that ran when they were counted last"""

    async def complete(
        self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = ""
    ) -> bytes:
        self.running += 1  # whether it waits is not seen from outside
        try:
            return await self.answered(lambda: self.tier.complete(path, body, reading, call_id))
        finally:
            self.running -= 1
            self.finished += 1

    async def stream(
        self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = ""
    ) -> AsyncGenerator[bytes]:
        self.waiting += 1
        waits = True
        try:
            events, first = await self.answered(lambda: opened(self.tier.stream(path, body, reading, call_id)))
            waits = False
            self.waiting, self.running = self.waiting - 1, self.running + 1
            async with aclosing(events):
                yield first
                async for item in events:
                    yield item
        finally:
            if waits:
                self.waiting -= 1
            else:
                self.running -= 1
                self.finished += 1

    async def answered(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer, or its first part; of another replica where one is lost. Raises RequestFailed."""
        self.retries.asked()
        try:
            return await self.tried_once(ask)
        except RequestFailed as error:
            if not (self.siblings and lost(error) and self.retries.may()):
                raise
        await asyncio.sleep(self.retries.wait_s())
        return await self.tried_once(ask)

    async def tried_once(self, ask: Callable[[], Awaitable[T]]) -> T:
        with self.tried():
            answer = await ask()
        self.breaker.worked(self.name)
        return answer

    @contextmanager
    def tried(self) -> Iterator[None]:
        """Tells the breaker of failures that are the tier's. Raises NoReplica at once while the circuit is open."""
        left_s = self.breaker.left_s(self.name)
        if left_s:
            raise NoReplica(self.name, "it failed several times in a row", math.ceil(left_s))
        self.breaker.sent(self.name)
        try:
            yield
        except RequestFailed as error:
            if down(error):
                self.breaker.failed(self.name)
            else:
                self.breaker.worked(self.name)
            raise

    async def replicas(self) -> int:
        """That run; a tier that is not ours counts as one."""
        running = getattr(self.tier, "running", None)
        self.count = int(await running()) if callable(running) else 1
        return self.count

    async def close(self) -> None:
        """No request is under way any more: let go of what the tier holds open."""
        close = getattr(self.tier, "close", None)
        if callable(close):
            await close()


async def opened(events: AsyncGenerator[bytes]) -> tuple[AsyncGenerator[bytes], bytes]:
    """The stream and its first event; nothing stays open where that does not come."""
    try:
        return events, await anext(events, b"")
    except BaseException:
        await events.aclose()
        raise
