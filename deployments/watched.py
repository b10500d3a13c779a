"""A tier and how much of it is in use by this process: what the status page shows and what the choice of a tier may see."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from deployments.tier import Tier
from router.trace import Reading
from router.types import Path


class Watched:
    """The same tier. `waiting`: calls without a first answer yet; `running`: those that are being answered."""

    def __init__(self, tier: Tier) -> None:
        self.name, self.tier = tier.name, tier
        self.waiting = self.running = 0

    async def complete(
        self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = ""
    ) -> bytes:
        self.running += 1  # whether it waits is not seen from outside
        try:
            return await self.tier.complete(path, body, reading, call_id)
        finally:
            self.running -= 1

    async def stream(
        self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = ""
    ) -> AsyncGenerator[bytes]:
        self.waiting += 1
        waits = True
        try:
            async with aclosing(self.tier.stream(path, body, reading, call_id)) as events:
                async for item in events:
                    if waits:
                        waits = False
                        self.waiting, self.running = self.waiting - 1, self.running + 1
                    yield item
        finally:
            if waits:
                self.waiting -= 1
            else:
                self.running -= 1

    async def replicas(self) -> int:
        """That run; a tier that is not ours counts as one."""
        running = getattr(self.tier, "running", None)
        return int(await running()) if callable(running) else 1
