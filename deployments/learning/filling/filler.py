"""Fills in what was kept: of requests drawn at random, the tiers that were not asked are asked afterwards, and all are graded.

It works at idle, within `learning.fill_usd_day`, and in one ingress at a time. Whatever a row, a tier or the database does, it
never raises; it says why it rests.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from deployments.daemon import Daemon
from deployments.learning.filling import fill_rows
from deployments.learning.filling.asking import Asker, Budget, Halted, TooDear
from deployments.learning.filling.fill_request import SEEN, Grader, Outage
from deployments.learning.filling.idleness import Idleness
from deployments.learning.filling.known_tiers import KnownTiers
from deployments.learning.kept.served_json import Broken
from deployments.learning.kept.served_rows import OUTAGES, Position
from deployments.learning.lease import Lease, this_process
from deployments.learning.live.variant_tiers import Variants
from deployments.ledger.ledger import Ledger
from deployments.traffic.watched_tier import Watched
from router.cascade.code_tests import CodeCheck
from router.config import Config
from router.decide.abilities import Abilities
from router.errors import LedgerDown
from router.flywheel.variants import tier_of
from router.limits.key_limits import day_of
from router.trace import CallRow
from router.types import Counter

log = logging.getLogger("stepdown")
T = TypeVar("T")
State = Literal["waiting", "done", "failed", "dropped"]
NAME = "filler"  # of the lease
LEASE_S = 30.0
AT_ONCE = 4  # requests that are worked on side by side
LOOK_EVERY_S = 0.5
READY_S = 0.1  # between looks whether a tier is idle
EMPTY_S = 2.0  # between looks for work while there is none
BATCH = 50  # requests that are looked up at once
COUNT_EVERY_S = 15.0  # between counts for `state`
RETRY_S = 600.0  # after a tier did not answer
TRIES = 3
LOOK_BACK_S = 86_400.0  # at the start, for feedback and audits that came while nobody looked
SETTLED_S = 10.0  # after which the rows of a request's audit are in the tables
DATABASE = (SQLAlchemyError, LedgerDown)
OUT = "the ledger's database does not answer"


class Filler:
    """tiers: the ladder, cheapest first. prices: USD per token, by tier. fingerprints: of the ladder. check: runs tests that
    come with requests. counts: by tier. first: whether work waits that goes first. elsewhere: calls to a tier by other
    ingresses. called: told of each call. clock: Unix time.
    """

    def __init__(
        self,
        ledger: Ledger,
        tiers: Mapping[str, Watched],
        settings: Config,
        abilities: Abilities,
        prices: Mapping[str, Sequence[float]],
        fingerprints: Mapping[str, Any],
        check: CodeCheck | None,
        counts: Mapping[str, Counter],
        first: Callable[[], bool] = lambda: False,
        elsewhere: Callable[[str], float] = lambda _: 0.0,
        called: Callable[[CallRow], None] | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        learning, by_name = settings.learning, {tier.name: tier for tier in settings.tiers}
        self.ledger, self.store, self.clock, self.first, self.called = ledger, ledger.store, clock, first, called
        self.budget = Budget(learning.fill_usd_day)
        self.known = KnownTiers(tiers, by_name, fingerprints.get("models") or {})
        self.variants: Variants | None = None
        """tiers on other weights; None: there are none"""
        how = (self.known.tiers, by_name, prices, counts, abilities, self.known.models, self.budget, self.ready, self.add)
        limits = min(settings.server.request_timeout_s, settings.server.stream_idle_s), settings.routing.answer_reserve
        self.asker = Asker(*how, *limits, clock=clock)
        self.idleness = Idleness(
            self.known.tiers, self.known.settings, self.asker.own, lambda name: elsewhere(self.known.key(name))
        )
        checks = check, settings.escalation.tests_timeout_s, learning.judge == "top"
        self.grader = Grader(self.store, by_name, self.asker, *checks, clock)
        self.lease, self.holder = Lease(self.store.transact), this_process()
        self.leads_until = 0.0
        """by time.monotonic: the lease is ours until then"""
        self.tasks: dict[asyncio.Task[None], str] = {}
        """work under way -> its request"""
        self.found: deque[tuple[str, bool]] = deque()
        """(request, whether it is to be filled in, not only graded)"""
        self.told_s = clock() - LOOK_BACK_S
        self.answered: Position = (clock() - LOOK_BACK_S, "")
        self.next_look = self.next_count = 0.0
        self.counted: dict[str, int] = {}
        self.rests = "it has not begun yet"
        self.working = Daemon(self.work)

    def start(self) -> None:
        self.working.start()

    async def close(self) -> None:
        """Stop the calls under way; what they were for stays to be done."""
        await self.working.stop()
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)
        if self.leads:
            with suppress(*DATABASE):
                await asyncio.to_thread(self.lease.release, NAME, self.holder)

    def state(self) -> dict[str, Any]:
        """How far it is, as of a few seconds ago. `rests`: why it asks nobody now; empty: it works."""
        return {
            **{name: self.counted.get(name, 0) for name in ("waiting", "done", "failed", "dropped")},
            "running": len(self.tasks),
            "spent_usd": round(self.budget.spent, 9),
            "usd_day": self.budget.usd_day,
            "rests": self.rests,
        }

    @property
    def leads(self) -> bool:
        return time.monotonic() < self.leads_until

    # -- the worker ------------------------------------------------------------------------------------------------------

    async def work(self) -> None:
        while True:
            pause_s = LOOK_EVERY_S
            try:
                self.rests = await self.look()
            except DATABASE:
                self.rests, pause_s = OUT, EMPTY_S
            except Exception:
                log.exception("filling in goes on after a fault")
                self.rests, pause_s = "a fault, which the log names", EMPTY_S
            if self.tasks:
                await asyncio.wait(self.tasks, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(pause_s)

    async def look(self) -> str:
        """Begin what may begin. Returns why nothing does; empty: something is under way."""
        self.grader.variants = self.variants
        if self.variants:
            self.known.update(self.variants)
        if time.monotonic() >= self.next_count:
            self.next_count = time.monotonic() + COUNT_EVERY_S
            self.counted = await self.reading(fill_rows.states)
        if not await self.take_lease():
            return "another ingress fills in"
        self.tasks = {task: name for task, name in self.tasks.items() if not task.done()}
        if self.budget.day != day_of(self.clock()).name:
            await self.begin_day()
        if self.budget.exhausted:
            self.found.clear()
        while len(self.tasks) < AT_ONCE and (work := await self.next_work()):
            self.begin(*work)
        if self.budget.exhausted:
            return "the day's budget is spent"
        return self.waits() if self.tasks else self.waits_for() or "there is nothing to fill in"

    def waits_for(self) -> str:
        """Which weights have to answer too but do not yet, so that nothing is filled in meanwhile; empty: none."""
        return self.variants.waits_for() if self.variants else ""

    async def take_lease(self) -> bool:
        """Whether this ingress fills in. A lease that was lost and is ours again begins with what others have spent."""
        if self.leads_until - time.monotonic() > LEASE_S * 2 / 3:
            return True
        led, asked = self.leads, time.monotonic()
        if not await asyncio.to_thread(self.lease.take, NAME, self.holder, LEASE_S, self.clock()):
            self.leads_until = 0.0
            return False
        self.leads_until = asked + LEASE_S
        if not led:
            await self.begin_day()
            self.grader.seen = await self.reading(partial(fill_rows.means, tier=tier_of(self.grader.top), limit=SEEN))
        return True

    async def begin_day(self) -> None:
        await self.ledger.settled()
        since_s = day_of(self.clock()).began_s
        self.budget.begin(self.clock(), await self.reading(partial(fill_rows.spent_since, since_s=since_s)))
        self.look_back()

    def look_back(self) -> None:
        """Look again for what may have been missed; what was graded since is not graded again."""
        self.told_s, self.answered = self.clock() - LOOK_BACK_S, (self.clock() - LOOK_BACK_S, "")
        self.found.clear()

    async def next_work(self) -> tuple[str, bool] | None:
        """A request that nobody works on; None: there is none, as of the last look."""
        if not self.found and time.monotonic() >= self.next_look:
            self.found.extend(await self.reading(self.looked_up))
            self.next_look = 0.0 if self.found else time.monotonic() + EMPTY_S
        return self.found.popleft() if self.found else None

    def looked_up(self, connection: Connection) -> list[tuple[str, bool]]:
        """What there is to do: fills while there is money, then those that others have to answer too since, then feedback, then
        what drafts and audits have answered.
        """
        busy = set(self.tasks.values())
        pays = not self.budget.exhausted and not self.waits_for()
        waiting = fill_rows.waiting(connection, self.clock() - RETRY_S, BATCH) if pays else []
        if fresh := [trace for trace in waiting if trace not in busy]:
            return [(trace, True) for trace in fresh]
        since_s = self.variants.wanted.since_s if self.variants and pays else None
        again = [] if since_s is None else fill_rows.lacking(connection, self.grader.names, since_s, BATCH)
        if fresh := [trace for trace in again if trace not in busy]:
            return [(trace, True) for trace in fresh]
        told = fill_rows.told_after(connection, self.told_s, BATCH)
        if told:
            self.told_s = told[-1][0]
            return [(trace, False) for trace in dict.fromkeys(trace for _, trace in told) if trace not in busy]
        until_s = self.clock() - SETTLED_S
        found, self.answered = fill_rows.answered_by_all(connection, self.answered, until_s, list(self.grader.tiers), BATCH)
        return [(trace, False) for trace in found if trace not in busy]

    def begin(self, trace_id: str, fills: bool) -> None:
        self.tasks[asyncio.create_task(self.done(trace_id, fills))] = trace_id

    # -- one request -----------------------------------------------------------------------------------------------------

    async def done(self, trace_id: str, fills: bool) -> None:
        """Work on one request, and note where that failed. Never raises."""
        try:
            why, state = await self.tried(trace_id, fills)
            if why and fills:
                await self.note(trace_id, why, state)
        except Halted as halted:
            self.rests = str(halted)
        except DATABASE:
            self.rests, self.next_look = OUT, time.monotonic() + EMPTY_S
            self.look_back()

    async def tried(self, trace_id: str, fills: bool) -> tuple[str, State]:
        """Why it could not be done, empty where it was; and the state of its fill then. Raises Halted and database errors."""
        try:
            await (self.grader.fill(trace_id) if fills else self.grader.grade_again(trace_id))
        except Outage as outage:
            return str(outage), "waiting"
        except TooDear as error:
            return str(error), "dropped"
        except (Halted, *DATABASE):
            raise
        except Exception as error:  # noqa: BLE001 a row may hold anything; the next request is another
            log.warning("request %s cannot be filled in: %s", trace_id, type(error).__name__)
            return str(error) if isinstance(error, Broken) else f"it cannot be worked on ({type(error).__name__})", "failed"
        return "", "done"

    async def note(self, trace_id: str, why: str, state: State) -> None:
        """Write down that a request could not be filled in, or not yet: after TRIES outages of one tier it never will."""

        def written(connection: Connection) -> None:
            over = state == "waiting" and fill_rows.failures(connection, trace_id, OUTAGES) >= TRIES
            fill_rows.settle(connection, [trace_id], "failed" if over else state, why, self.clock())

        await self.ledger.settled()  # the rows of the calls that failed
        await asyncio.to_thread(self.store.transact, written)

    async def ready(self, tier: str) -> None:
        """Wait until a tier may be asked. Raises Halted where this ingress no longer fills in. tier: the name of its weights."""
        while tier in self.known.tiers and self.waits(tier):
            if not self.leads:
                raise Halted("another ingress fills in")
            await asyncio.sleep(READY_S)
        if tier not in self.known.tiers:
            raise Halted(f"{tier} does not answer yet")

    def waits(self, *tiers: str) -> str:
        """Why the tiers may not be asked now, by default any; empty: they may."""
        if self.first():
            return "audits go first"
        return self.idleness.waits(*(tiers or (name for name in self.grader.names if name in self.known.tiers)))

    async def add(self, rows: Sequence[CallRow]) -> None:
        await self.ledger.add(rows)
        if self.called:
            for row in rows:
                self.called(row)

    async def reading(self, query: Callable[[Connection], T]) -> T:
        def read() -> T:
            with self.store.engine.connect() as connection:
                return query(connection)

        return await asyncio.to_thread(read)
