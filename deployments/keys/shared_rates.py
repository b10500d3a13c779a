"""The limits a minute of all keys, counted once for all ingresses.

A request of a key with such limits is counted where all ingresses meet, by one small message; requests of other keys ask nobody.
While that place does not answer, each ingress grants its own share, as it does where it was never told of one.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, NamedTuple

from router.errors import RateLimited
from router.limits.key_limits import Key, RateLimits, TakenRate
from router.limits.reservation import Size

PATIENCE_S = 2.0  # for the place where all are counted; a busy event loop alone may take a second
REST_S = 1.0  # after it did not answer, in which it is not asked
log = logging.getLogger("stepdown")


class Refusal(NamedTuple):
    """What `RateLimited` is made of: an exception of another process would come back as Ray's."""

    limit: int
    unit: str
    wait_s: float
    needed: int


def rate_taken(rates: RateLimits, key: Key, size: Size | None, look: bool, now_s: float) -> TakenRate | Refusal:
    """`RateLimits.take`, of a request whose tokens are not known where `size` is None. look: count nothing."""
    try:
        if look:
            rates.check(key, 1, 1, now_s)
            return TakenRate(key.id, 0, 0, 0)
        if size is None:
            rates.take_request(key, now_s)
            return TakenRate(key.id, 0, 0, 0)
        return rates.take(key, size, now_s)
    except RateLimited as error:
        return Refusal(error.limit, error.unit, error.wait_s, error.needed)


def rate_settled(rates: RateLimits, taken: TakenRate, tokens: int | None) -> None:
    """tokens: that the request used; None: it did not run."""
    if tokens is None:
        rates.undo(taken)
    else:
        rates.settle(taken, tokens)


class SharedRates:
    """own: what this ingress grants by itself. ask: calls a method of the place where all are counted; None: there is none.

    ticks: seconds that never jump.
    """

    def __init__(self, own: RateLimits, ticks: Callable[[], float] = time.monotonic) -> None:
        self.own, self.ticks = own, ticks
        self.ask: Callable[..., Awaitable[Any]] | None = None
        self.failed_s = float("-inf")
        """when it did not answer last"""
        self.refused: dict[str, float] = {}
        """key that was refused -> until when its requests are looked at before they are read"""
        self.settling: set[asyncio.Task[None]] = set()

    async def check(self, key: Key) -> None:
        """Called before a request is read. Raises RateLimited for a key that has used up its requests or tokens a minute.

        Where all ingresses count together, only a key that was refused of late is worth asking for.
        """
        if not self.elsewhere(key):
            self.own.check(key, 1, 1, self.ticks())
        elif self.refused.get(key.id, 0.0) > self.ticks():
            await self.counted(key, None, look=True)

    async def take_request(self, key: Key) -> None:
        """Count a request whose tokens are not known yet. Raises RateLimited."""
        await self.counted(key, None)

    async def take(self, key: Key, size: Size) -> TakenRate:
        """Count a request before it runs. Raises RateLimited, and then counts nothing."""
        return await self.counted(key, size)

    async def counted(self, key: Key, size: Size | None, look: bool = False) -> TakenRate:
        found = None
        if self.elsewhere(key):
            found = await self.asked(key, size, look)
        shared = found is not None
        if found is None:
            found = rate_taken(self.own, key, size, look, self.ticks())
        if isinstance(found, TakenRate):
            return replace(found, shared=True) if shared else found
        refusal = Refusal(*found)
        self.refused[key.id] = self.ticks() + refusal.wait_s
        raise RateLimited(refusal.limit, refusal.unit, refusal.wait_s, refusal.needed)

    def elsewhere(self, key: Key) -> bool:
        """Whether the key's use is counted where all ingresses meet."""
        limited = key.requests_per_minute is not None or key.tokens_per_minute is not None
        return limited and self.ask is not None and self.ticks() - self.failed_s > REST_S

    async def asked(self, key: Key, size: Size | None, look: bool) -> TakenRate | Refusal | None:
        """None: it does not answer."""
        asking = asyncio.create_task(self.reached("take_rate", key, size, look))
        try:
            found: TakenRate | Refusal = await asyncio.shield(asking)
            return found
        except asyncio.CancelledError:  # the client left, and may be counted already
            asking.add_done_callback(self.give_back)
            raise
        except Exception as error:  # noqa: BLE001 Ray has many; whatever it is, this ingress grants its share
            self.failed_s = self.ticks()
            log.warning("the limits a minute are not counted together (%s): each ingress grants its share", type(error).__name__)
            return None

    async def reached(self, method: str, *given: Any) -> Any:
        assert self.ask
        return await asyncio.wait_for(self.ask(method, *given), PATIENCE_S)

    def give_back(self, asking: "asyncio.Task[Any]") -> None:
        if not asking.cancelled() and not asking.exception() and isinstance(found := asking.result(), TakenRate):
            self.undo(replace(found, shared=True))

    def settle(self, taken: TakenRate, tokens: int) -> None:
        """Correct the count: the request is over and used that many tokens."""
        self.end(taken, tokens)

    def undo(self, taken: TakenRate) -> None:
        """Uncount a request that did not run."""
        self.end(taken, None)

    def end(self, taken: TakenRate, tokens: int | None) -> None:
        if not taken.shared:
            rate_settled(self.own, taken, tokens)
            return
        task = asyncio.get_running_loop().create_task(self.told(taken, tokens))
        self.settling.add(task)
        task.add_done_callback(self.settling.discard)

    async def told(self, taken: TakenRate, tokens: int | None) -> None:
        """Where the place does not answer, the request counts as what it might have used until its minute is over."""
        try:
            await self.reached("settle_rate", taken, tokens)
        except Exception as error:  # noqa: BLE001 as above
            log.debug("a request's tokens are not corrected: %r", error)
