"""Several ingresses report to each other, once a second, how many requests each has at every tier.

Their sum is the work in the whole cluster, requests in Serve's queues included. It costs one small call a second for each
ingress, however many replicas the tiers have. Serve's own numbers come every ten seconds, and only for tiers that scale; asking
every replica would cost ingresses times replicas. The exchange is a Serve deployment of one replica, which exists where there
are several ingresses. When it is gone no request waits for it: the counts of the others grow old, and each ingress
assumes an equal share of the places again (deployments/traffic/balance.py).
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from deployments.daemon import Daemon

EVERY_S = 1.0
STALE_S = 5.0  # older counts are not used
TIMEOUT_S = 2.0  # for one exchange
log = logging.getLogger("stepdown")


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests at one tier: without a first answer yet, being answered, and finished since the start."""

    waiting: float = 0
    running: float = 0
    finished: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.waiting + other.waiting, self.running + other.running, self.finished + other.finished)


class QueueExchange:
    """Sums the ingresses' counts. One that is silent counts as idle, but its finished total stays, so that sums never fall."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.reports: dict[str, tuple[float, Mapping[str, Counts]]] = {}
        """ingress -> when it reported last, and its counts by tier"""

    async def report(self, ingress: str, counts: Mapping[str, Counts]) -> dict[str, Counts]:
        """Tier -> the sum of the other ingresses' counts."""
        now_s = self.clock()
        self.reports[ingress] = now_s, counts
        others: dict[str, Counts] = {}
        for name, (at_s, reported) in self.reports.items():
            for tier, n in reported.items() if name != ingress else ():
                heard = n if now_s - at_s <= STALE_S else Counts(finished=n.finished)
                others[tier] = others.get(tier, Counts()) + heard
        return others


@dataclass(slots=True)
class OtherIngresses:
    """What one ingress knows of the others."""

    counts: Mapping[str, Counts] = field(default_factory=dict)
    """tier -> the sum of their counts"""
    at_s: float = float("-inf")
    """when it was heard, on the balancer's clock"""

    def fresh(self, now_s: float) -> bool:
        return now_s - self.at_s <= STALE_S


Report = Callable[[str, Mapping[str, Counts]], Awaitable[Mapping[str, Counts]]]


class QueueReporter(Daemon):
    """A task of an ingress that reports its counts and notes the others'. Requests read `others` and never wait for it."""

    def __init__(self, report: Report, counts: Callable[[], Mapping[str, Counts]], others: OtherIngresses) -> None:
        super().__init__(self.report_on)
        self.report, self.counts, self.others = report, counts, others
        self.name = uuid.uuid4().hex

    async def report_on(self) -> None:
        while True:
            try:
                await self.once()
            except Exception as error:  # noqa: BLE001 - whatever is wrong: the known counts grow old
                log.debug("no exchange of queue lengths with the other ingresses: %r", error)
            await asyncio.sleep(EVERY_S)

    async def once(self) -> None:
        counts = await asyncio.wait_for(self.report(self.name, self.counts()), TIMEOUT_S)
        self.others.counts, self.others.at_s = counts, time.monotonic()
