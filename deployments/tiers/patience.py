"""How long a tier may say nothing in the middle of a stream."""

import asyncio
import time
from collections.abc import AsyncGenerator

from router.errors import TierSilent


class Patience:
    """Waits for the items of a stream, until its tier was silent for `most_s` on end: comments and empty chunks say nothing.

    Only waiting counts, not the time in which the client reads.
    """

    def __init__(self, tier: str, most_s: float | None) -> None:
        self.tier, self.most_s = tier, most_s
        self.silent_s = 0.0
        self.said = 0

    async def wait(self, events: AsyncGenerator[bytes], said: int) -> bytes | None:
        """The next item; None: there is none. said: how much was said until now. Raises TierSilent."""
        if self.most_s is None:
            return await anext(events, None)
        if said != self.said:
            self.silent_s, self.said = 0.0, said
        began = time.monotonic()
        limit = asyncio.timeout(self.most_s - self.silent_s)
        try:
            async with limit:
                return await anext(events, None)
        except TimeoutError:
            if limit.expired():
                raise TierSilent(self.tier, self.most_s) from None
            raise
        finally:
            self.silent_s += time.monotonic() - began
