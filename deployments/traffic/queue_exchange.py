"""What ingresses tell each other once a second: how many requests each has at every tier.

Their sum is what the cluster has under way, those in Serve's queues included, and it costs one small call a second for
each ingress, however many replicas the tiers have. Serve's own numbers come every ten seconds, for tiers that grow and
shrink alone; asking every replica would cost ingresses times replicas. The place where they meet is a Serve deployment
of one replica, which exists where there are several ingresses. When it is gone, nobody waits for it: news grow old, and
each ingress goes by its own part again (deployments/traffic/balance.py).
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from deployments.daemon import Daemon

EVERY_S = 1.0
STALE_S = 5.0  # older news count for nothing
PATIENCE_S = 2.0  # for one exchange
log = logging.getLogger("stepdown")


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests at one tier: without a first answer yet, being answered, and done since the start."""

    waiting: float = 0
    running: float = 0
    finished: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.waiting + other.waiting, self.running + other.running, self.finished + other.finished)


class Meeting:
    """Where they meet. Who is silent has nothing under way any more; what it had finished still counts: sums never fall."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.said: dict[str, tuple[float, Mapping[str, Counts]]] = {}

    async def tell(self, who: str, counts: Mapping[str, Counts]) -> dict[str, Counts]:
        """Tier -> the sum of what the others said."""
        now_s = self.clock()
        self.said[who] = now_s, counts
        others: dict[str, Counts] = {}
        for name, (at_s, of) in self.said.items():
            for tier, n in of.items() if name != who else ():
                heard = n if now_s - at_s <= STALE_S else Counts(finished=n.finished)
                others[tier] = others.get(tier, Counts()) + heard
        return others


@dataclass(slots=True)
class News:
    """What one ingress knows of the others. at_s: on the balancer's clock."""

    others: Mapping[str, Counts] = field(default_factory=dict)
    at_s: float = float("-inf")

    def fresh(self, now_s: float) -> bool:
        return now_s - self.at_s <= STALE_S


Tell = Callable[[str, Mapping[str, Counts]], Awaitable[Mapping[str, Counts]]]


class Teller:
    """One task of an ingress that tells and listens. Requests never wait for it: they read `news`."""

    def __init__(self, tell: Tell, counts: Callable[[], Mapping[str, Counts]], news: News) -> None:
        self.tell, self.counts, self.news = tell, counts, news
        self.name = uuid.uuid4().hex
        self.daemon = Daemon(self.work)

    def start(self) -> None:
        self.daemon.start()

    async def close(self) -> None:
        await self.daemon.stop()

    async def work(self) -> None:
        while True:
            try:
                await self.once()
            except Exception as error:  # noqa: BLE001 whatever is wrong there: news grow old
                log.debug("the other ingresses cannot be heard: %r", error)
            await asyncio.sleep(EVERY_S)

    async def once(self) -> None:
        told = await asyncio.wait_for(self.tell(self.name, self.counts()), PATIENCE_S)
        self.news.others, self.news.at_s = told, time.monotonic()
