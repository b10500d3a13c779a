"""Lets the engine of an idle replica sleep, and wakes it for the next call.

    awake ──(no call for after_s; lock)──► dozing ──(a call; lock)──► waking ──(one token)──► awake

vLLM aborts what runs when it is put to sleep, so every call says when it begins and ends, and there is no sleep before the last
one has ended. All of it happens on one event loop; between a look at the calls and the step that follows from it nothing is
awaited.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal, Protocol

from deployments.daemon import Daemon
from deployments.replicas.card.node_lock import NodeLock
from router.errors import TierDozing

log = logging.getLogger("stepdown")
State = Literal["awake", "dozing", "waking"]
LEVEL = 1  # weights go to the machine's memory; at level 2 they are lost, and models came back broken
LOOK_S = 0.5  # between two looks whether it is time to doze, or another tier wants the card
MEND_S = 60.0  # between two lines of the log on a lock that cannot be had
MAKE_ROOM_S = 0.1  # between two looks whether another tier has gone


class Engine(Protocol):
    """What an engine must be able to do, as Ray's and vLLM's can."""

    async def sleep(self, *, level: int) -> None: ...

    async def wake_up(self) -> None: ...

    async def is_sleeping(self) -> bool: ...


class Turns(Protocol):
    """The other tiers on the same card: see board.py."""

    def may_wake(self) -> bool:
        """Whether there is room now; if not, those who can go are asked to. To be called under the lock."""

    def wanted(self) -> bool:
        """Whether another tier has asked this one to go."""

    def tell(self, awake: bool, calls: int, idle_s: float) -> None:
        """Say how this one is."""

    def close(self) -> None:
        """This one is gone."""


class Alone:
    """Nobody takes turns with this tier."""

    def may_wake(self) -> bool:
        return True

    def wanted(self) -> bool:
        return False

    def tell(self, awake: bool, calls: int, idle_s: float) -> None:
        return None

    def close(self) -> None:
        return None


@asynccontextmanager
async def room(lock: NodeLock, turns: Turns) -> AsyncIterator[None]:
    """Holds the lock, from when there is room on the card: around the start of an engine, which is awake at its end."""
    while True:
        async with lock.held():
            if turns.may_wake():
                yield
                return
        await asyncio.sleep(MAKE_ROOM_S)


class Dozer:
    """tier: its name. after_s: seconds without a call after which it dozes. wait_s: that a call waits for it; may be infinite.

    try_token: answers one token, or raises. clock: seconds that never jump.
    """

    def __init__(
        self,
        tier: str,
        engine: Engine,
        after_s: float,
        wait_s: float,
        lock: NodeLock,
        try_token: Callable[[], Awaitable[None]],
        turns: Turns | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tier, self.engine, self.after_s, self.wait_s = tier, engine, after_s, wait_s
        self.lock, self.try_token, self.turns, self.clock = lock, try_token, turns or Alone(), clock
        self.state: State = "awake"
        self.calls = 0
        """under way, or waiting until it is awake"""
        self.last_s = clock()
        """when the last call ended, or it was last woken"""
        self.changing = asyncio.Lock()
        self.waking: asyncio.Task[None] | None = None
        self.looking = Daemon(self.look_again)

    @asynccontextmanager
    async def call(self) -> AsyncIterator[None]:
        """Around everything that needs the engine: it is awake from then on until the end.

        Raises TierDozing after `wait_s`, and whatever waking it raised; the next call tries again.
        """
        self.calls += 1
        try:
            if self.state != "awake":
                await self.up()
            yield
        finally:
            self.calls -= 1
            self.last_s = self.clock()

    async def up(self) -> None:
        """Wait until it is awake. All who come meanwhile wait for the same waking, which goes on when one of them leaves."""
        until_s = self.clock() + self.wait_s
        while self.state != "awake":
            if self.waking is None:
                self.waking = asyncio.create_task(self.wake())
                self.waking.add_done_callback(lambda task: task.cancelled() or task.exception())  # also if nobody waits any more
            left_s = until_s - self.clock()
            done, _ = await asyncio.wait({self.waking}, timeout=None if left_s == float("inf") else max(0.0, left_s))
            if not done:
                raise TierDozing(self.tier)
            done.pop().result()

    async def wake(self) -> None:
        """Wake the engine when there is room on the card, and let it answer one token. Gives up when no call waits any more."""
        try:
            async with self.changing:
                while self.calls:
                    async with self.lock.held():
                        if self.turns.may_wake():
                            await self.wake_engine()
                            return
                    await asyncio.sleep(MAKE_ROOM_S)
        finally:
            self.waking = None

    async def wake_engine(self) -> None:
        began_s, self.state = self.clock(), "waking"
        try:
            if await self.engine.is_sleeping():
                await self.engine.wake_up()
            await self.try_token()
        except BaseException:
            self.state = "dozing"  # as far as anybody knows: the next call tries again
            raise
        self.state, self.last_s = "awake", self.clock()
        self.tell()
        log.info("tier %s woke in %.1f s", self.tier, self.last_s - began_s)

    @property
    def idle_s(self) -> float:
        """Seconds since the last call; 0: one is under way."""
        return 0.0 if self.calls else self.clock() - self.last_s

    @property
    def due(self) -> bool:
        """Whether it should doze: nobody asked for long, or another tier wants the card while no call is here."""
        return self.state == "awake" and not self.calls and (self.idle_s >= self.after_s or self.turns.wanted())

    async def doze(self) -> bool:
        """Let the engine sleep, unless a call came while the lock was waited for. False: one did."""
        async with self.changing, self.lock.held():
            if not self.due:
                return False
            self.state = "dozing"  # a call that comes now waits for `changing`, then wakes it
            try:
                await self.engine.sleep(level=LEVEL)
            except Exception:  # whatever an engine raises, the next call finds out whether it still answers
                log.exception("tier %s was to doze, and its engine failed; the next call tries to wake it", self.tier)
            self.tell()
            return True

    async def look(self) -> None:
        self.tell()
        if self.due:
            await self.doze()

    async def look_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except OSError as error:  # of the lock's or the board's file: it stays awake until that is mended
                log.error("tier %s cannot doze: %s", self.tier, error)
                await asyncio.sleep(MEND_S)

    def tell(self) -> None:
        self.turns.tell(self.state != "dozing", self.calls, self.idle_s)

    def start(self) -> None:
        """Begin to look. To be called when the engine has started and is awake."""
        self.last_s = self.clock()
        self.tell()
        self.looking.start()

    async def close(self) -> None:
        """The replica ends."""
        await self.looking.stop()
        if self.waking:
            self.waking.cancel()
        self.turns.close()
