"""News among ingresses: small facts that each tells the others, as which tier answers a conversation.

    news.tell("session", key, "large")     # at once; the others can know it a twentieth of a second later
    await news.fresh()                      # before a decision that needs it: knows what was told up to a moment ago

The board numbers what it is told and keeps the latest value of each fact. An ingress gets what is new since its last visit, so a
visit costs what has changed and not what there is. While much is told, an ingress visits twenty times a second, however many
requests it has; while little is told, a request that needs the news fetches them itself.
"""

import asyncio
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from deployments.daemon import Daemon
from deployments.ids import fresh as fresh_id

EVERY_S = 0.05  # between visits while there is something to tell, and how old news may be where a decision needs them
LISTEN_S = 1.0  # between visits of an ingress that has nothing to tell
PATIENCE_S = 0.25  # for one visit
REST_S = 1.0  # after a visit that failed, in which no request waits for another
MOST = 20_000  # facts that the board keeps
log = logging.getLogger("stepdown")


class Fact(NamedTuple):
    """kind and key name it; a later one of the same name replaces it."""

    kind: str
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Heard:
    """What a visit brings back."""

    board: str
    """the board's name; another one knows nothing of what was told before"""
    number: int
    """of the latest fact; to be shown at the next visit"""
    facts: Sequence[Fact]
    """of the other ingresses, in the order in which they were told"""


class NewsBoard:
    """The latest value of each fact, the longest untold are forgotten first."""

    def __init__(self, most: int = MOST) -> None:
        self.name, self.most, self.number = secrets.token_hex(8), most, 0
        self.known: OrderedDict[tuple[str, str], tuple[int, str, str]] = OrderedDict()
        """(kind, key) -> number, ingress, value; the latest last"""

    def visit(self, ingress: str, told: Sequence[Fact], board: str, number: int) -> Heard:
        """Take what an ingress tells, give what the others have told since `number` of that board."""
        for fact in told:
            self.number += 1
            name = fact[0], fact[1]
            self.known[name] = self.number, ingress, fact[2]
            self.known.move_to_end(name)
        while len(self.known) > self.most:
            self.known.popitem(last=False)
        since = number if board == self.name else 0
        found = []
        for (kind, key), (at, by, value) in reversed(self.known.items()):
            if at <= since:
                break
            if by != ingress:
                found.append(Fact(kind, key, value))
        return Heard(self.name, self.number, found[::-1])


Visit = Callable[[str, Sequence[Fact], str, int], Awaitable[Heard]]
Hear = Callable[[str, str], None]
"""takes the key and the value of a fact that another ingress told"""


class News:
    """One ingress's end. hear: by the kind of a fact. clock: seconds that never jump. `tell` may be called from any thread."""

    def __init__(self, visit: Visit, hear: dict[str, Hear], clock: Callable[[], float] = time.monotonic) -> None:
        self.visit, self.hear, self.clock = visit, hear, clock
        self.ingress = fresh_id()
        self.untold: dict[tuple[str, str], str] = {}
        self.board, self.number = "", 0
        self.heard_s = self.failed_s = float("-inf")
        """when the last visit began that succeeded, and when one failed last"""
        self.going: asyncio.Task[None] | None = None
        self.daemon = Daemon(self.work)

    def start(self) -> None:
        self.daemon.start()

    async def stop(self) -> None:
        await self.daemon.stop()
        if self.going:
            self.going.cancel()
            await asyncio.wait({self.going})

    def tell(self, kind: str, key: str, value: str) -> None:
        self.untold[kind, key] = value

    async def fresh(self) -> None:
        """Return when everything is known that was told up to EVERY_S ago. Never raises, nor waits for a board that is down."""
        since = self.clock() - EVERY_S
        while self.heard_s < since and self.clock() - self.failed_s > REST_S:
            await self.visited()

    async def work(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            if self.untold or self.clock() - self.heard_s > LISTEN_S:
                await self.visited()

    async def visited(self) -> None:
        """One visit, for all who wait for one."""
        if self.going is None or self.going.done():
            self.going = asyncio.create_task(self.go())
        await asyncio.shield(self.going)

    async def go(self) -> None:
        began, told = self.clock(), self.untold
        self.untold = {}
        facts = [Fact(*name, value) for name, value in told.items()]
        try:
            heard = await asyncio.wait_for(self.visit(self.ingress, facts, self.board, self.number), PATIENCE_S)
        except Exception as error:  # noqa: BLE001 Ray has many; whatever it is, this ingress goes on with what it knows
            log.debug("no news of the other ingresses: %r", error)
            self.untold = told | self.untold
            self.failed_s = self.clock()
            while len(self.untold) > MOST:
                del self.untold[next(iter(self.untold))]
            return
        self.board, self.number, self.heard_s = heard.board, heard.number, began
        for kind, key, value in heard.facts:
            with suppress(KeyError):  # told by an ingress of another version
                self.hear[kind](key, value)
