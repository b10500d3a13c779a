"""Records how much accelerator time the tiers held: looks at their running replicas every few seconds and makes windows of it.

Windows begin at multiples of `every_s`, so ingresses that run side by side report the same rows and the ledger keeps the
first. A window's replicas are the mean of the numbers seen at its begin and at its end. After a look that failed or came
late, the windows since the last look are interpolated between the two numbers seen, so no held time is lost. After more
than GAP_S without a look they are not: in such a pause (a suspended machine, a stopped ingress) the tier may have been down
too, so that time is not claimed; it is logged and counted in `unseen_s`. A restarted ingress goes on from the ledger's last
windows, if it is given them. Otherwise its first and last window may each be off by up to their own length.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from sqlalchemy import Engine, delete, func, insert, select, tuple_
from sqlalchemy.exc import SQLAlchemyError

from deployments.daemon import Daemon
from deployments.ledger import machine_time_sums, schema
from deployments.ledger.database import writing
from deployments.ledger.schema import shared_replicas
from router.config import Tier
from router.errors import LedgerDown
from router.trace import Window

log = logging.getLogger("stepdown")
GAP_S = 120.0  # longest pause that is filled in
MOST_WAITING = 10_000  # windows that wait for a ledger that is down; beyond, the oldest are dropped
Running = Callable[[str], Awaitable[int]]
Hold = Callable[[Sequence[Window]], Awaitable[None]]


class HeldTime:
    """Looks at the tiers' replicas every `every_s` seconds and reports windows.

    replicas_of: returns a tier's running replicas. held: takes the windows. clock: Unix time. last: tier -> end (Unix time) and
    replicas of its latest window in the ledger; ends longer ago than GAP_S are ignored. note_hosts: writes down which tiers share
    replicas; False: it is to be tried again.
    """

    def __init__(
        self,
        tiers: Sequence[Tier],
        replicas_of: Running,
        held: Hold,
        every_s: int = 10,
        clock: Callable[[], float] = time.time,
        last: Mapping[str, tuple[float, float]] | None = None,
        note_hosts: Callable[[], bool] = lambda: True,
    ) -> None:
        self.tiers = {tier.name: tier for tier in tiers}
        self.replicas_of, self.held, self.every_s, self.clock = replicas_of, held, every_s, clock
        self.seen: dict[str, tuple[float, float]] = {
            name: (at // every_s * every_s, count) for name, (at, count) in (last or {}).items() if clock() - at <= GAP_S
        }
        """tier -> time of the last look, a multiple of every_s, and its replicas then"""
        self.waiting: list[Window] = []
        self.note_hosts, self.hosts_noted = note_hosts, False
        self.unseen_s = 0.0
        """unobserved seconds, added up over all tiers"""
        self.daemon = Daemon(self.work)

    def start(self) -> None:
        self.daemon.start()

    async def close(self) -> None:
        """Report the windows that are complete by now, and stop."""
        await self.daemon.stop()
        await self.look()

    async def work(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:  # accounting must not end because one look failed
                log.exception("the tiers' replicas could not be read; the next look fills the time in")
            await asyncio.sleep(self.every_s - self.clock() % self.every_s)

    async def look(self) -> None:
        """Note every tier's replicas, and report the windows that have become complete."""
        at = self.clock() // self.every_s * self.every_s
        counts = await asyncio.gather(*map(self.replicas_of, self.tiers), return_exceptions=True)
        for name, count in zip(self.tiers, counts, strict=True):
            if isinstance(count, BaseException):
                log.warning("replicas of %s unknown: %s", name, count)
            else:
                self.waiting += self.windows(name, at, count)
        await self.report()
        if not self.hosts_noted:
            self.hosts_noted = await asyncio.to_thread(self.note_hosts)

    def windows(self, name: str, at: float, count: int) -> list[Window]:
        """One tier's windows from the last look to `at`."""
        before, was = self.seen.get(name, (at, count))
        if at < before:  # the clock was set back, and that time is reported already
            return []
        self.seen[name] = (at, count)
        if at - before > GAP_S:
            self.unseen_s += at - before
            log.warning("nobody looked at %s for %.0f s; that time is not recorded", name, at - before)
            return []
        steps, tier = round((at - before) / self.every_s), self.tiers[name]
        return [
            Window(
                tier=name,
                began_s=before + i * self.every_s,
                seconds=self.every_s,
                replicas=was + (count - was) * (i + 0.5) / steps,
                accelerators=max(1, tier.accelerators),
                usd_per_accelerator_hour=tier.price.usd_per_accelerator_hour,
            )
            for i in range(steps)
        ]

    async def report(self) -> None:
        """Windows that the ledger does not take now wait for the next look."""
        if len(self.waiting) > MOST_WAITING:
            log.error("the ledger takes no windows; the oldest %d are dropped", len(self.waiting) - MOST_WAITING)
            self.unseen_s += sum(window.seconds for window in self.waiting[:-MOST_WAITING])
            self.waiting = self.waiting[-MOST_WAITING:]
        if self.waiting:
            sent = list(self.waiting)
            try:
                await self.held(sent)
            except LedgerDown as error:
                log.warning("windows of held time wait: %s", error)
                return
            self.waiting = self.waiting[len(sent) :]


def last_windows(engine: Engine) -> dict[str, tuple[float, float]]:
    """tier -> end (Unix time) and replicas of its latest window; empty where the ledger does not answer."""
    columns = schema.windows.c
    latest = select(columns.tier, func.max(columns.began_s)).group_by(columns.tier)
    ends = select(columns.tier, columns.began_s + columns.seconds, columns.replicas)
    query = ends.where(tuple_(columns.tier, columns.began_s).in_(latest))
    try:
        with engine.connect() as connection:
            return {tier: (float(end), float(count)) for tier, end, count in connection.execute(query)}
    except SQLAlchemyError as error:
        log.warning("the ledger's last windows cannot be read: %s", error)
        return {}


def note_hosts(engine: Engine, ladder: Mapping[str, str]) -> bool:
    """Remember the hosts of a ladder's tiers. ladder: tier -> host, itself where it has replicas of its own.

    False where the ledger does not answer. Tiers that no ladder has any more keep theirs: their hours are still read.
    """
    shared = {tier: host for tier, host in ladder.items() if tier != host}
    try:
        with engine.connect() as connection:
            known = machine_time_sums.hosts(connection)
        if {tier: host for tier, host in known.items() if tier in ladder} == shared:
            return True
        with writing(engine) as connection:
            connection.execute(delete(shared_replicas).where(shared_replicas.c.tier.in_(sorted(ladder))))
            if shared:
                connection.execute(insert(shared_replicas), [{"tier": t, "host": h} for t, h in sorted(shared.items())])
    except SQLAlchemyError as error:
        log.warning("which tiers share replicas cannot be written into the ledger yet: %s", error)
        return False
    return True
