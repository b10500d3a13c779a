"""How long a tier may say nothing in the middle of a stream."""

import asyncio
import time
from collections.abc import AsyncGenerator

from router.errors import TierSilent


class Patience:
    """Waits for the items of a stream, until its tier was silent for `most_s` on end: comments and empty chunks say nothing.

    Only waiting counts, not the time in which the client reads. One timer serves the whole stream, since `asyncio.timeout` makes
    one for each item, which costs as much as reading it.
    """

    def __init__(self, tier: str, most_s: float | None) -> None:
        self.tier, self.most_s = tier, most_s
        self.silent_s = self.began_s = 0.0
        self.said = 0
        self.waits: asyncio.Task[object] | None = None
        """who waits for an item now"""
        self.timer: asyncio.TimerHandle | None = None
        self.over = False

    async def wait(self, events: AsyncGenerator[bytes], said: int) -> bytes | None:
        """The next item; None: there is none. said: how much was said until now. Raises TierSilent."""
        if self.most_s is None:
            return await anext(events, None)
        if said != self.said:
            self.silent_s, self.said = 0.0, said
        self.waits, self.began_s = asyncio.current_task(), time.monotonic()
        assert self.waits
        before = self.waits.cancelling()
        if self.timer is None:
            self.look()
        try:
            return await anext(events, None)
        except asyncio.CancelledError:
            if self.over and self.waits.uncancel() <= before:  # else somebody else cancels us too
                raise TierSilent(self.tier, self.most_s) from None
            raise
        finally:
            self.silent_s += time.monotonic() - self.began_s
            self.waits = None

    def look(self) -> None:
        """Stop the waiting if it has lasted long enough, else look again when it may have."""
        self.timer = None
        if self.waits is None or self.most_s is None:
            return
        left_s = self.most_s - self.silent_s - (time.monotonic() - self.began_s)
        if left_s > 0:
            self.timer = asyncio.get_running_loop().call_later(left_s, self.look)
        else:
            self.over = True
            self.waits.cancel()

    def close(self) -> None:
        if self.timer:
            self.timer.cancel()
