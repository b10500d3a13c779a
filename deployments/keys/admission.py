"""Finds the key of a request, and admits the request within the key's limits a minute and its budgets."""

import asyncio
import hmac
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from deployments.keys.key_store import Stored, hashed, read_keys, usable
from deployments.keys.offered import offered
from deployments.ledger import budgets
from deployments.ledger.database import driver_message
from router.errors import BadKey, LedgerDown
from router.limits.consent import Consent
from router.limits.key_limits import RIGHTS, Key, RateLimits, TakenRate
from router.limits.reservation import Size

log = logging.getLogger("stepdown")
FRESH_S = 2.0  # once the keys were read longer ago than this, they are read again while requests go on
STALE_S = 4.0  # longer ago than this, a request waits for the reading, so that a revoked key is refused after 5 s at the latest
WAIT_S = 1.0  # longest wait for a reading: known keys must work while the database does not answer
AGAIN_S = 0.25  # between two readings for unknown keys: junk must not become work for the database
RENEW_S = budgets.LEASE_S / 5
THREADS = 4  # for the database; requests of the same key wait for each other there anyway
GIVEN = Key("given", "given at the start", rights=frozenset(RIGHTS))
NOBODY = Key("nobody", "nobody", rights=frozenset(RIGHTS))


@dataclass(frozen=True, slots=True)
class Grant:
    """Permission to answer one request. To be settled once, whatever becomes of the request."""

    trace_id: str
    key_id: str
    usd: float
    """what was set aside; 0: nothing"""
    taken: TakenRate
    began_s: float
    """Unix time: the day and month whose budgets it counts in"""


class Keys:
    """Knows the stored keys, their use in the last minute, and the reservations of requests in flight. One for each process.

    engine: the key store; without one only the given key is known. given_hash: SHA-256 of a key that needs no database and has
    every right. insecure: clients without a known key are let in as NOBODY. replicas: processes that share the requests; each
    grants its share of a key's limits a minute. clock: Unix time, for days and months. ticks: seconds that never jump.
    learning: the consent of the given key, and of clients without one.
    """

    def __init__(
        self,
        engine: Engine | None,
        given_hash: str = "",
        insecure: bool = False,
        replicas: int = 1,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
        learning: Consent = "never",
    ) -> None:
        self.engine, self.given_hash, self.insecure, self.clock, self.ticks = engine, given_hash, insecure, clock, ticks
        self.given = GIVEN if learning == "never" else replace(GIVEN, learning=learning)
        self.nobody = NOBODY if learning == "never" else replace(NOBODY, learning=learning)
        self.rates = RateLimits(replicas)
        self.found: Mapping[str, Stored] = {}
        """hash -> key that is not revoked"""
        self.read_s = self.tried_s = float("-inf")
        """when the last reading that succeeded began, and the last that was tried"""
        self.reading: Future[None] | None = None
        self.live: dict[str, float | None] = {}
        """trace id -> None while the request is being answered, then what it spent until that is settled"""
        self.renewing: asyncio.Task[None] | None = None
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="keys")
        self.budget_engine = budgets.unsynced(engine) if engine else None
        self.reconciled = False

    def close(self) -> None:
        self.threads.shutdown()
        if self.budget_engine is not None and self.budget_engine is not self.engine:
            self.budget_engine.dispose()

    # -- finding the key -----------------------------------------------------------------------------------------------

    async def look_up(self, headers: Mapping[str, str]) -> Key:
        """The first known key among those that a request's headers offer: see `offered`.

        A new key is found at once where no known one comes with it; a revoked one is refused after 5 s at the latest. Raises
        BadKey, and LedgerDown where no key is known and the database does not answer.
        """
        hashes, now = [hashed(key) for key in offered(headers)], self.ticks()
        if self.engine and hashes and not self.is_given(hashes[0]):
            if not any(hash_ in self.found or self.is_given(hash_) for hash_ in hashes):
                await self.wait_for_reading(since=now)
                if self.read_s < now and not self.insecure:
                    raise LedgerDown("the keys cannot be read")
            elif self.read_s < now - STALE_S:
                await self.wait_for_reading(since=now - STALE_S)
        return self.known(hashes)

    def known(self, hashes: Sequence[str]) -> Key:
        """`look_up` without waiting: a new key may not be known yet. hashes: of the keys that are offered. Raises BadKey."""
        for hash_ in hashes:
            if self.is_given(hash_):
                return self.given
            if self.engine and max(self.read_s, self.tried_s) < self.ticks() - FRESH_S:
                self.start_reading()
            found = self.found.get(hash_)  # no timing leak: an attacker cannot choose digests
            if found and hmac.compare_digest(found.hash, hash_):
                return found.key
        if self.insecure:
            return self.nobody
        raise BadKey

    async def were_read(self) -> bool:
        """Whether the stored keys were read since the start, or none are needed. Tries it where they were not."""
        if self.engine is None or self.insecure:
            return True
        if self.read_s == float("-inf"):
            await self.wait_for_reading(since=self.ticks())
        return self.read_s > float("-inf")

    def is_given(self, hash_: str) -> bool:
        return bool(self.given_hash) and hmac.compare_digest(hash_, self.given_hash)

    async def wait_for_reading(self, since: float) -> None:
        """Wait for a reading of the keys that began at `since` or later, unless it fails or takes too long."""
        while self.read_s < since:
            if self.reading is None or self.reading.done():
                if self.tried_s >= since:
                    return
                await asyncio.sleep(self.tried_s + AGAIN_S - self.ticks())
            reading, left_s = self.start_reading(), self.tried_s + WAIT_S - self.ticks()
            if left_s <= 0:
                return
            await asyncio.wait({asyncio.wrap_future(reading)}, timeout=left_s)

    def start_reading(self) -> "Future[None]":
        """Start to read the keys in a thread, unless a reading is under way; returns the reading."""
        if self.reading is None or self.reading.done():
            self.tried_s = self.ticks()
            self.reading = self.threads.submit(self.read, self.tried_s)
        return self.reading

    def read(self, began_s: float) -> None:
        assert self.engine is not None
        try:
            self.found = {k.hash: k for k in usable(read_keys(self.engine))}
            self.read_s = began_s
        except (SQLAlchemyError, ValueError) as error:
            log.warning("the keys cannot be read; those known before go on: %s", driver_message(error))

    # -- limits and budgets --------------------------------------------------------------------------------------------

    def check_rates(self, key: Key) -> None:
        """Called before a request is read. Raises RateLimited for a key that has used up its requests or tokens a minute."""
        self.rates.check(key, 1, 1, self.ticks())

    def count_now(self, key: Key) -> Key:
        """Count a request whose reading alone is work, whatever becomes of it. Raises RateLimited.

        Returns the key with the limits that `admit` has left to check.
        """
        self.rates.take_request(key, self.ticks())
        return replace(key, requests_per_minute=None)

    async def admit(self, key: Key, trace_id: str, size: Size, most_usd: float, began_s: float | None = None) -> Grant:
        """Count a request and set aside the most it may cost. Raises RateLimited, BudgetSpent, LedgerDown, changing nothing.

        began_s: when the request began, Unix time; None: now.
        """
        taken, began_s = self.rates.take(key, size, self.ticks()), self.clock() if began_s is None else began_s
        held = key.budgeted and most_usd > 0
        if not held or self.budget_engine is None:
            return Grant(trace_id, key.id, 0.0, taken, began_s)
        try:
            await self.wait_for_reservation(trace_id, self.threads.submit(self.reserve, trace_id, key, most_usd, began_s))
        except BaseException:
            self.rates.undo(taken)
            raise
        self.keep_alive(trace_id)
        return Grant(trace_id, key.id, most_usd, taken, began_s)

    async def exchange(self, grant: Grant, key: Key, most_usd: float) -> Grant:
        """Replace the grant of a request that may now cost more. Raises BudgetSpent, LedgerDown."""
        if most_usd <= grant.usd or grant.usd <= 0 or self.budget_engine is None:
            return grant
        reserving = self.threads.submit(self.reserve, grant.trace_id, key, most_usd, grant.began_s, anew=True)
        await self.wait_for_reservation(grant.trace_id, reserving)
        return replace(grant, usd=most_usd)

    async def wait_for_reservation(self, trace_id: str, reserving: "Future[None]") -> None:
        """Raises BudgetSpent, LedgerDown. A client that leaves meanwhile leaves nothing set aside."""
        try:
            await asyncio.shield(asyncio.wrap_future(reserving))
        except asyncio.CancelledError:  # the thread may still set the money aside
            reserving.add_done_callback(lambda _: self.settle_now(trace_id, 0.0))
            raise
        except SQLAlchemyError as error:
            raise LedgerDown("budgets cannot be kept") from error

    def reserve(self, trace_id: str, key: Key, usd: float, began_s: float, anew: bool = False) -> None:
        """Runs in a thread. anew: give back first what the request holds."""
        assert self.budget_engine is not None
        if not self.reconciled:
            budgets.reconcile(self.budget_engine, self.clock())
            self.reconciled = True
        if anew:
            budgets.settle(self.budget_engine, trace_id, 0.0)
        budgets.reserve(self.budget_engine, trace_id, key, usd, self.clock(), began_s)

    async def settle(self, grant: Grant, spent_usd: float, tokens: int) -> None:
        """Free what was set aside beyond the spent USD. Never raises, and goes on in its thread if it is cancelled."""
        self.rates.settle(grant.taken, tokens)
        if grant.usd > 0:
            self.live[grant.trace_id] = spent_usd
            settling = self.threads.submit(self.settle_now, grant.trace_id, spent_usd)
            await asyncio.shield(asyncio.wrap_future(settling))

    def settle_now(self, trace_id: str, spent_usd: float) -> None:
        """Runs in a thread. A failure is tried again later; if the process dies before, the ledger's sums count the money."""
        assert self.budget_engine is not None
        try:
            budgets.settle(self.budget_engine, trace_id, spent_usd)
            self.live.pop(trace_id, None)
        except SQLAlchemyError as error:
            log.warning("the budget of %s cannot be settled yet: %s", trace_id, driver_message(error))

    def keep_alive(self, trace_id: str) -> None:
        """Renew the reservation until the request is settled."""
        self.live[trace_id] = None
        if self.renewing is None or self.renewing.done():
            self.renewing = asyncio.get_running_loop().create_task(self.renew())

    async def renew(self) -> None:
        while self.live:
            await asyncio.sleep(RENEW_S)
            await asyncio.to_thread(self.renew_now)

    def renew_now(self) -> None:
        """Runs in a thread. Also tries again to settle requests for which that failed."""
        assert self.budget_engine is not None
        live = list(self.live.items())
        try:
            if live:
                budgets.renew(self.budget_engine, [trace_id for trace_id, _ in live], self.clock())
        except SQLAlchemyError as error:
            log.warning("reservations cannot be renewed: %s", driver_message(error))
            return
        for trace_id, spent_usd in live:
            if spent_usd is not None:
                self.settle_now(trace_id, spent_usd)
