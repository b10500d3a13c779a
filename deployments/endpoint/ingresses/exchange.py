"""Where the ingresses of a server meet: a Serve deployment of one replica, which exists where there are several.

It holds what must be one for all: their counts of running requests, news, hidden turns, answers to be continued, and each key's
use of its limits a minute. All of it lies in memory and may be lost with the replica: conversations then move at most once, and
limits begin a new minute.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from deployments.endpoint.ingresses.news import PATIENCE_S, Fact, Heard, NewsBoard
from deployments.endpoint.ingresses.shelf import Shelf
from deployments.keys.shared_rates import Refusal, rate_settled, rate_taken
from deployments.traffic.queue_exchange import QueueExchange
from router.limits.key_limits import Key, RateLimits, TakenRate
from router.limits.reservation import Size

HIDDEN = "hidden"
RESPONSES = "responses"
HIDDEN_BYTES = 256_000_000
HIDDEN_S = 7_200.0  # longer than an ingress keeps its own: it uses them without telling
log = logging.getLogger("stepdown")


class IngressExchange(QueueExchange):
    """response_bytes: most bytes of answers to be continued. clock: seconds that never jump."""

    def __init__(self, response_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self.board, self.rates = NewsBoard(), RateLimits()
        self.shelves = {HIDDEN: Shelf(HIDDEN_BYTES, HIDDEN_S, clock), RESPONSES: Shelf(response_bytes, clock=clock)}

    async def visit(self, ingress: str, told: Sequence[Fact], board: str, number: int) -> Heard:
        return self.board.visit(ingress, told, board, number)

    async def put(self, shelf: str, name: str, text: bytes) -> None:
        self.shelves[shelf].put(name, text)

    async def get(self, shelf: str, name: str) -> bytes | None:
        return self.shelves[shelf].get(name)

    async def drop(self, shelf: str, name: str) -> None:
        self.shelves[shelf].drop(name)

    async def take_rate(self, key: Key, size: Size | None, look: bool) -> TakenRate | Refusal:
        """size: of the request; None: only that there is one. look: count nothing."""
        return rate_taken(self.rates, key, size, look, self.clock())

    async def settle_rate(self, taken: TakenRate, tokens: int | None) -> None:
        """tokens: that the request used; None: it did not run."""
        rate_settled(self.rates, taken, tokens)


class Meeting:
    """One ingress's way to the exchange. ask: calls a method of it by name."""

    def __init__(self, ask: Callable[..., Awaitable[Any]]) -> None:
        self.ask = ask

    async def put(self, shelf: str, name: str, text: bytes) -> None:
        """Never raises: what cannot be put there is known to this ingress alone, or to none."""
        await self.tried("put", shelf, name, text)

    async def get(self, shelf: str, name: str) -> bytes | None:
        """None: it is not there, or the exchange does not answer."""
        found: bytes | None = await self.tried("get", shelf, name)
        return found

    async def drop(self, shelf: str, name: str) -> None:
        await self.tried("drop", shelf, name)

    async def tried(self, method: str, *given: Any) -> Any:
        try:
            return await asyncio.wait_for(self.ask(method, *given), PATIENCE_S)
        except Exception as error:  # noqa: BLE001 Ray has many; whatever it is, this ingress goes on without
            log.warning("the exchange of the ingresses does not answer (%s): %s", method, type(error).__name__)
            return None
