"""A tier and how much of it is in use by this process: what the status page shows and what the choice of a tier may see."""

import math
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any

from deployments.tier import Tier
from router.breaker import Breaker
from router.errors import NoReplica, RequestFailed, TierFailed
from router.trace import Reading
from router.types import Path


def down(error: RequestFailed) -> bool:
    """The tier's own failure, which another tier may not have; a full queue is not one."""
    return isinstance(error, NoReplica | TierFailed) and error.status >= 500


class Watched:
    """The same tier. `waiting`: calls without a first answer yet; `running`: those that are being answered."""

    def __init__(self, tier: Tier, breaker: Breaker) -> None:
        self.name, self.tier, self.breaker = tier.name, tier, breaker
        self.waiting = self.running = 0

    async def complete(
        self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = ""
    ) -> bytes:
        self.running += 1  # whether it waits is not seen from outside
        try:
            with self.tried():
                answer = await self.tier.complete(path, body, reading, call_id)
            self.breaker.worked(self.name)
            return answer
        finally:
            self.running -= 1

    async def stream(
        self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = ""
    ) -> AsyncGenerator[bytes]:
        self.waiting += 1
        waits = True
        try:
            async with aclosing(self.tier.stream(path, body, reading, call_id)) as events:
                with self.tried():
                    first = await anext(events, b"")
                waits = False
                self.waiting, self.running = self.waiting - 1, self.running + 1
                self.breaker.worked(self.name)
                yield first
                async for item in events:
                    yield item
        finally:
            if waits:
                self.waiting -= 1
            else:
                self.running -= 1

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
        return int(await running()) if callable(running) else 1
