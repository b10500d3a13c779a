"""How the replicas of a tier that may doze are, as one ingress last heard: asked seldom, and so that none wakes or starts."""

import asyncio
import time
from collections.abc import Awaitable, Callable

LOOK_EVERY_S = 10.0
PATIENCE_S = 2.0
FORGET_S = 60.0  # a replica that was not heard of for so long does not count; Serve draws which one is asked


class DozeWatch:
    """ask: one replica says its name, and whether it is awake, dozing or waking. running: counts the tier's replicas.

    clock: seconds that never jump.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[tuple[str, str]]],
        running: Callable[[], Awaitable[int]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ask, self.running, self.clock = ask, running, clock
        self.heard: dict[str, tuple[str, float]] = {}
        """replica -> how it was, and when"""
        self.looked_s = float("-inf")

    async def look(self) -> None:
        """Ask one replica, unless that was done within LOOK_EVERY_S, or there is none: a call would start one.

        Raises TimeoutError, and what Ray raises.
        """
        now_s = self.clock()
        if now_s < self.looked_s + LOOK_EVERY_S:
            return
        self.looked_s = now_s
        if not await self.running():
            self.heard.clear()
            return
        async with asyncio.timeout(PATIENCE_S):
            replica, state = await self.ask()
        self.heard[replica] = state, now_s
        self.heard = {name: known for name, known in self.heard.items() if now_s - known[1] < FORGET_S}

    @property
    def state(self) -> str:
        """`dozing` if all do, `waking` if one wakes and none is awake, else `awake`; empty: nothing was heard."""
        states = {state for state, _ in self.heard.values()}
        return next((state for state in ("awake", "waking", "dozing") if state in states), "")
