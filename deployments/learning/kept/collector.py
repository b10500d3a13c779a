"""Keeps what was served, where it may be kept: requests put it into a queue, a thread of its own redacts and writes it.

No request waits for it: a full queue, a database that does not answer and a hook that raises cost rows, which are counted, and
nothing else. The thread also deletes what is old or too much.
"""

import asyncio
import logging
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from deployments.learning.kept.collected import Answered, Collecting, Item, Kept, answers_of
from deployments.learning.kept.completion_store import Batch
from deployments.learning.kept.keeper import Keeper, Withheld
from deployments.learning.kept.redaction import RedactionFailed
from deployments.ledger.database import driver_message
from deployments.ledger.store import Store
from router.config import Learning, Tier
from router.limits.consent import kept_by
from router.limits.key_limits import Key
from router.request.body import several_wanted
from router.types import Request

log = logging.getLogger("stepdown")
# What may wait to be written; more is dropped.
MOST_WAITING = 2_000
MOST_BYTES = 64_000_000
# What is written in one transaction.
GROUP = 128
GROUP_BYTES = 4_000_000
GATHER_S = 1.0  # for more to come after the first
PAUSE_S = 0.0005  # after the rows of so many requests: whoever makes them holds Python's lock, which requests need
PAUSE_AFTER = 8
TIDY_EVERY_S = 60.0  # between looks for what is old
TIDY_PAUSE_S = 0.05  # between small deletions, so that others can write meanwhile
ATTEMPTS = 3  # of a transaction
RETRY_S = 1.0
LOG_EVERY_S = 60.0
CLOSE_S = 20.0
PROBE_S = 10.0
DRAWN_FLOWS = ("direct", "cascade", "race")  # in which an answer is one tier's own


@dataclass(slots=True)
class Counts:
    """Of requests and audits, since the start."""

    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """why -> how many: full, large, unreadable, redaction, withheld, database"""


class Collector:
    """Decides what is kept, and keeps it. tiers: by name. models: tier -> its model's fingerprint.

    clock: Unix time. draw: returns a random number in [0, 1).
    """

    def __init__(
        self,
        settings: Learning,
        store: Store,
        tiers: Mapping[str, Tier],
        models: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Raises BadConfig where the hook `learning.redact` cannot be loaded."""
        self.settings, self.clock, self.draw = settings, clock, draw
        self.keeper = Keeper(settings, store, tiers, models or {}, clock)
        self.redaction = self.keeper.redaction
        self.names = frozenset(tiers)
        self.fill_share = settings.fill_share
        """the chance with which a request is drawn to be filled in"""
        self.counts = Counts()
        self.waiting: deque[Item] = deque()
        self.bytes = 0
        self.changed = threading.Condition()
        self.closing = False
        self.next_tidy = 0.0
        self.logged: dict[str, float] = {}
        """what was said in the log -> when it was last, by time.monotonic"""
        self.thread = threading.Thread(target=self.work, name="collector", daemon=True)

    async def open(self) -> None:
        """Start the thread. A hook that fails on a greeting is known to be broken from then on."""
        try:
            async with asyncio.timeout(PROBE_S):
                await asyncio.to_thread(self.redaction.probe)
        except TimeoutError:
            log.warning("learning.redact took more than %g s for a greeting", PROBE_S)
        self.thread.start()

    async def close(self) -> None:
        """Write what waits."""
        with self.changed:
            self.closing = True
            self.changed.notify()
        if self.thread.is_alive():
            await asyncio.to_thread(self.thread.join, CLOSE_S)
        self.keeper.close()

    # -- for requests: microseconds ------------------------------------------------------------------------------------

    def begin(self, key: Key, trace_id: str, asked: Request, conversation: str) -> tuple[Collecting | None, str]:
        """Decide whether a request's answer is to be kept. Returns where to gather it, and what `x-stepdown-stored` says."""
        consent, why = kept_by(self.settings.collect, key.learning, asked.store)
        if not consent:
            return None, said_of(self.settings, asked, why)
        if asked.path != "chat/completions" or several_wanted(asked.body):
            return None, "no; request"
        collecting = Collecting(trace_id, key.id, asked, consent, conversation)
        if self.redaction.broken:
            self.put(Item(collecting, (), self.clock()))  # nothing of it is kept, but it shows whether the hook works again
            self.counts.dropped["redaction"] += 1
            return None, "no; redaction"
        if self.full(asked.size):
            self.counts.dropped["full"] += 1
            return None, "no; full"
        return collecting, "yes"

    def answered(self, answered: Answered) -> None:
        """Called for each whole answer, with status 200, of a request that is to be kept."""
        collecting = answered.collecting
        if collecting is None:
            return
        try:
            answers = answers_of(answered, collecting)
        except Exception as error:  # noqa: BLE001 whatever it is, the client gets its answer
            self.counts.dropped["unreadable"] += 1
            self.say("an answer was not kept: %s", type(error).__name__)
            return
        if not answers:
            self.counts.dropped["large"] += 1
            return
        fair = answered.decided.target not in self.names and answered.flow in DRAWN_FLOWS and not answered.degraded_by()
        chance = self.fill_share if fair and self.draw() < self.fill_share else 0.0
        self.put(Item(collecting, answers, self.clock(), chance))

    def audited(self, collecting: Collecting | None, audit: Kept) -> None:
        """Called for each audit's answer: kept as its request was."""
        if collecting is not None:
            self.put(Item(collecting, (audit,), self.clock()))

    def full(self, size: int) -> bool:
        return len(self.waiting) >= MOST_WAITING or self.bytes + size > MOST_BYTES

    def put(self, item: Item) -> None:
        with self.changed:
            if self.closing or self.full(item.size):
                self.counts.dropped["full"] += bool(item.answers)
                return
            self.waiting.append(item)
            self.bytes += item.size
            if len(self.waiting) in (1, GROUP):  # else the thread would wake up for each request that it gathers
                self.changed.notify()

    # -- the thread ----------------------------------------------------------------------------------------------------

    def work(self) -> None:
        while True:
            batch = self.take()
            if batch:
                self.keep(batch)
            elif self.closing:
                return
            if not self.closing and time.monotonic() >= self.next_tidy:
                self.tidy()

    def take(self) -> list[Item]:
        """What waits, at most a group; nothing where it is time to tidy up, or to end."""
        with self.changed:
            self.changed.wait_for(lambda: self.waiting or self.closing, max(0.0, self.next_tidy - time.monotonic()))
            if self.waiting:
                self.changed.wait_for(lambda: self.closing or len(self.waiting) >= GROUP, GATHER_S)
            batch: list[Item] = []
            size = 0
            while self.waiting and len(batch) < GROUP and size < GROUP_BYTES:
                batch.append(self.waiting.popleft())
                size += batch[-1].size
            return batch

    def keep(self, items: list[Item]) -> None:
        """Write a batch, and drop what cannot be written. Never raises."""
        parts = []
        for number, item in enumerate(items, 1):
            why = ""
            try:
                parts.append(self.keeper.batch_of(item))
            except Withheld:
                why = "withheld"
            except RedactionFailed as error:
                why = "redaction"
                self.say("a conversation was not kept: learning.redact raised %s", error)
            except Exception as error:  # noqa: BLE001 a tier may have said anything
                why = "unreadable"
                self.say("an answer was not kept: it cannot be read (%s)", type(error).__name__)
            if why and item.answers:
                self.counts.dropped[why] += 1
            if number % PAUSE_AFTER == 0:
                time.sleep(PAUSE_S)
        self.write([part for part in parts if part.completions])
        with self.changed:
            self.bytes -= sum(item.size for item in items)

    def write(self, parts: list[Batch]) -> None:
        for attempt in range(ATTEMPTS):
            try:
                written = self.keeper.write(parts)
                self.counts.kept += written
                self.counts.dropped["unreadable"] += len(parts) - written
                return
            except Exception as error:  # noqa: BLE001 whatever it is, requests go on
                self.say("what was served is not kept: the ledger's database does not take it: %s", driver_message(error))
            with self.changed:
                if self.closing or attempt == ATTEMPTS - 1:
                    break
                self.changed.wait_for(lambda: self.closing, RETRY_S)
        self.counts.dropped["database"] += len(parts)

    def tidy(self) -> None:
        """Delete what is old or too much, in small steps between which others can write."""
        try:
            more = self.keeper.tidy()
            self.next_tidy = time.monotonic() + (TIDY_PAUSE_S if more else TIDY_EVERY_S)
        except Exception as error:  # noqa: BLE001 it is tried again in a minute
            self.next_tidy = time.monotonic() + TIDY_EVERY_S
            self.say("what is too old to be kept cannot be deleted: %s", driver_message(error))

    def say(self, what: str, error: object) -> None:
        """Log a trouble, at most once a minute."""
        now = time.monotonic()
        if now - self.logged.get(what, -LOG_EVERY_S) >= LOG_EVERY_S:
            self.logged[what] = now
            log.error(what, error)


def said_of(settings: Learning, asked: Request, why: str) -> str:
    """The header's value for what is not kept; empty where nobody asked for it."""
    return f"no; {why}" if settings.collect != "off" or asked.store else ""
