"""How much accelerator time the tiers held: their running replicas, looked at every few seconds, as windows of the ledger.

Windows begin at multiples of `every_s`, so ingresses that run side by side report the same rows and the ledger keeps the
first. A window's replicas are the mean of the numbers seen at its begin and at its end. A look that fails or comes late
does not change that rule: the windows since the last look are filled in evenly between the two numbers seen, so
no held time is lost. After GAP_S without a look they are not: such a pause (a suspended machine, an ingress that was
down) may hide a tier that was down too, and time that nobody saw is not claimed. It is told in the log and in `unseen_s`.
An ingress that was restarted goes on from the ledger's last windows, if they are given to it. Where it starts afresh or
ends, its first and last window may be too much or too little by at most themselves.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from sqlalchemy import Engine, func, select, tuple_
from sqlalchemy.exc import SQLAlchemyError

from deployments.daemon import Daemon
from deployments.ledger import schema
from router.config import Tier
from router.errors import LedgerDown
from router.trace import Window

log = logging.getLogger("stepdown")
GAP_S = 120.0
KEPT = 10_000  # windows that wait for a ledger that is down; then the oldest are given up, and told

Running = Callable[[str], Awaitable[int]]
Hold = Callable[[Sequence[Window]], Awaitable[None]]


class Provision:
    """replicas_of: running replicas of a tier by name. held: where windows go. clock: Unix time.

    last: of each tier the end of its latest window in the ledger, Unix time, and its replicas; older than GAP_S is ignored.
    """

    def __init__(
        self,
        tiers: Sequence[Tier],
        replicas_of: Running,
        held: Hold,
        every_s: int = 10,
        clock: Callable[[], float] = time.time,
        last: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        self.tiers = {tier.name: tier for tier in tiers}
        self.replicas_of, self.held, self.every_s, self.clock = replicas_of, held, every_s, clock
        self.seen: dict[str, tuple[float, float]] = {
            name: (at // every_s * every_s, count) for name, (at, count) in (last or {}).items() if clock() - at <= GAP_S
        }
        """tier -> when it was looked at last, a multiple of every_s, and its replicas then"""
        self.waiting: list[Window] = []
        self.unseen_s = 0.0
        """seconds, over all tiers, for which nobody claims to know"""
        self.daemon = Daemon(self.work)

    def start(self) -> None:
        self.daemon.start()

    async def close(self) -> None:
        """Report what is whole until now, and stop."""
        await self.daemon.stop()
        await self.look()

    async def work(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:  # accounting must not end because one look failed
                log.exception("could not look at the tiers' replicas; the next look fills the time in")
            await asyncio.sleep(self.every_s - self.clock() % self.every_s)

    async def look(self) -> None:
        """Note the replicas of every tier, and report the windows that are whole since the last look."""
        at = self.clock() // self.every_s * self.every_s
        counts = await asyncio.gather(*map(self.replicas_of, self.tiers), return_exceptions=True)
        for name, count in zip(self.tiers, counts, strict=True):
            if isinstance(count, BaseException):
                log.warning("replicas of %s unknown: %s", name, count)
            else:
                self.waiting += self.windows(name, at, count)
        await self.report()

    def windows(self, name: str, at: float, count: int) -> list[Window]:
        """Of one tier, from the last look to `at`."""
        before, was = self.seen.get(name, (at, count))
        if at < before:  # the clock was set back: what is reported already stands
            return []
        self.seen[name] = (at, count)
        if at - before > GAP_S:
            self.unseen_s += at - before
            log.warning("nobody looked at %s for %.0f s: that time is not in the books", name, at - before)
            return []
        steps = round((at - before) / self.every_s)
        tier = self.tiers[name]
        price = tier.price.usd_per_accelerator_hour
        return [
            Window(
                tier=name,
                began_s=before + i * self.every_s,
                seconds=self.every_s,
                replicas=was + (count - was) * (i + 0.5) / steps,
                accelerators=max(1, tier.accelerators),
                usd_per_accelerator_hour=price,
            )
            for i in range(steps)
        ]

    async def report(self) -> None:
        """What the ledger does not take now waits for the next look."""
        if len(self.waiting) > KEPT:
            log.error("the ledger takes no windows: %d are given up", len(self.waiting) - KEPT)
            self.unseen_s += sum(window.seconds for window in self.waiting[:-KEPT])
            self.waiting = self.waiting[-KEPT:]
        if self.waiting:
            sent = list(self.waiting)
            try:
                await self.held(sent)
            except LedgerDown as error:
                log.warning("windows of provisioned time wait: %s", error)
                return
            self.waiting = self.waiting[len(sent) :]


def last_windows(engine: Engine) -> dict[str, tuple[float, float]]:
    """Of each tier the end of its latest window, Unix time, and its replicas; nothing where the ledger does not answer."""
    of = schema.windows.c
    latest = select(of.tier, func.max(of.began_s)).group_by(of.tier)
    query = select(of.tier, of.began_s + of.seconds, of.replicas).where(tuple_(of.tier, of.began_s).in_(latest))
    try:
        with engine.connect() as connection:
            return {tier: (float(end), float(count)) for tier, end, count in connection.execute(query)}
    except SQLAlchemyError as error:
        log.warning("the ledger's last windows cannot be read: %s", error)
        return {}
