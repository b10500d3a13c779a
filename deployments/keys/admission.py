"""Who asks, and whether they may: known by its key, within its limits a minute and its budgets."""

import asyncio
import hmac
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from deployments.keys.key_store import Stored, hashed, read, usable
from deployments.ledger import budgets
from deployments.ledger.budgets import settle_in
from router.errors import BadKey, LedgerDown
from router.limits.key_limits import RIGHTS, Key, RateLimits, TakenRate
from router.limits.reservation import Size

__all__ = ["Grant", "Key", "Keys", "hashed", "settle_in"]
log = logging.getLogger("stepdown")
FRESH_S = 2.0  # older than this, the keys are read again while requests go on
STALE_S = 4.0  # older than this, a request waits for that, so that a revoked key is refused after 5 s at the latest
WAIT_S = 1.0  # at most: a database that does not answer stops no key that is known
AGAIN_S = 0.25  # between two readings for keys that nobody knows: junk must not become work for the database
RENEW_S = budgets.LEASE_S / 5
THREADS = 4  # that speak with the database about budgets; requests of one key wait for each other there anyway
GIVEN = Key("given", "given at the start", rights=frozenset(RIGHTS))
NOBODY = Key("nobody", "nobody", rights=frozenset(RIGHTS))


@dataclass(frozen=True, slots=True)
class Grant:
    """Leave to answer one request. To be settled once, whatever becomes of it."""

    trace_id: str
    key_id: str
    usd: float
    """set aside; 0: nothing was"""
    taken: TakenRate


class Keys:
    """Made once for a process. Without an engine only the given key is known.

    given_hash: SHA-256 of a key that needs no database and may do everything. insecure: who is not known is let in as nobody.
    replicas: processes that share the requests, each of which gives its share of what a key may in a minute.
    clock: Unix time, for days and months. ticks: seconds that never jump, for ages and minutes.
    """

    def __init__(
        self,
        engine: Engine | None,
        given_hash: str = "",
        insecure: bool = False,
        replicas: int = 1,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self.engine, self.given_hash, self.insecure, self.clock, self.ticks = engine, given_hash, insecure, clock, ticks
        self.rates = RateLimits(replicas)
        self.found: Mapping[str, Stored] = {}
        """hash -> key, those that are not revoked"""
        self.read_s = self.tried_s = float("-inf")
        """when the last reading that came back began, and the last that was tried"""
        self.reading: Future[None] | None = None
        self.live: dict[str, float | None] = {}
        """reservations of requests that are answered here; USD once they are, until it is settled"""
        self.renewing: asyncio.Task[None] | None = None
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="keys")
        self.books = budgets.unsynced(engine) if engine else None
        self.reconciled = False

    def close(self) -> None:
        self.threads.shutdown()
        if self.books is not None and self.books is not self.engine:
            self.books.dispose()

    # -- who asks ------------------------------------------------------------------------------------------------------

    async def look_up(self, header: str) -> Key:
        """The key of an Authorization header. A key that is new is found, one that was revoked is not after 5 s.

        Raises BadKey, LedgerDown where a key is not known and the database cannot be asked.
        """
        hash_, now = key_hash(header), self.ticks()
        if self.engine and hash_ and not self.is_given(hash_):
            if hash_ not in self.found:
                await self.wait_for_reading(since=now)
                if self.read_s < now and not self.insecure:
                    raise LedgerDown("the keys cannot be read")
            elif self.read_s < now - STALE_S:
                await self.wait_for_reading(since=now - STALE_S)
        return self.known(header)

    def known(self, header: str) -> Key:
        """The same from what is known by now, without waiting: a new key may not be known yet. Raises BadKey."""
        hash_, now = key_hash(header), self.ticks()
        if self.is_given(hash_):
            return GIVEN
        if self.engine and max(self.read_s, self.tried_s) < now - FRESH_S:
            self.start_reading()
        found = self.found.get(hash_)  # a look-up by digest tells an attacker nothing: it cannot choose digests of keys
        if found and hmac.compare_digest(found.hash, hash_):
            return found.key
        if self.insecure:
            return NOBODY
        raise BadKey

    def is_given(self, hash_: str) -> bool:
        return bool(self.given_hash) and hmac.compare_digest(hash_, self.given_hash)

    async def wait_for_reading(self, since: float) -> None:
        """Until the keys as they were at `since` or later are here. Gives up where a reading fails, or takes too long."""
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
        """Read the keys again, beside the event loop; the reading that is under way, if one is."""
        if self.reading is None or self.reading.done():
            self.tried_s = self.ticks()
            self.reading = self.threads.submit(self.read, self.tried_s)
        return self.reading

    def read(self, began_s: float) -> None:
        assert self.engine is not None
        try:
            self.found = {k.hash: k for k in usable(read(self.engine))}
            self.read_s = began_s
        except (SQLAlchemyError, ValueError) as error:
            log.warning("the keys cannot be read, those that are known go on: %s", first_line(error))

    # -- whether they may ----------------------------------------------------------------------------------------------

    async def admit(self, key: Key, trace_id: str, size: Size, most_usd: float) -> Grant:
        """Count a request and set aside what it may cost. Raises RateLimited, BudgetSpent, LedgerDown; then nothing is."""
        taken = self.rates.take(key, size, self.ticks())
        held = key.budgeted and most_usd > 0
        if not held or self.books is None:
            return Grant(trace_id, key.id, 0.0, taken)
        try:
            await self.reserved(trace_id, self.threads.submit(self.reserve, trace_id, key, most_usd))
        except BaseException:
            self.rates.undo(taken)
            raise
        self.keep_alive(trace_id)
        return Grant(trace_id, key.id, most_usd, taken)

    async def exchange(self, grant: Grant, key: Key, most_usd: float) -> Grant:
        """The request goes on where it may cost more: that is set aside instead. Raises BudgetSpent, LedgerDown."""
        if most_usd <= grant.usd or grant.usd <= 0 or self.books is None:
            return grant
        await self.reserved(grant.trace_id, self.threads.submit(self.reserve_anew, grant.trace_id, key, most_usd))
        return replace(grant, usd=most_usd)

    async def reserved(self, trace_id: str, reserving: "Future[None]") -> None:
        """Raises BudgetSpent, LedgerDown; a client that leaves meanwhile leaves nothing set aside."""
        try:
            await asyncio.shield(asyncio.wrap_future(reserving))
        except asyncio.CancelledError:  # the money may be set aside all the same
            reserving.add_done_callback(lambda _: self.settled(trace_id, 0.0))
            raise
        except SQLAlchemyError as error:
            raise LedgerDown("budgets cannot be kept") from error

    def reserve_anew(self, trace_id: str, key: Key, usd: float) -> None:
        """In a thread."""
        assert self.books is not None
        budgets.settle(self.books, trace_id, 0.0)
        self.reserve(trace_id, key, usd)

    def reserve(self, trace_id: str, key: Key, usd: float) -> None:
        """In a thread."""
        assert self.books is not None
        if not self.reconciled:
            budgets.reconcile(self.books, self.clock())
            self.reconciled = True
        budgets.reserve(self.books, trace_id, key, usd, self.clock())

    async def settle(self, grant: Grant, spent_usd: float, tokens: int) -> None:
        """The request is over: what was set aside beyond this is free again. Never raises; goes on if it is cancelled."""
        self.rates.settle(grant.taken, tokens)
        if grant.usd > 0:
            self.live[grant.trace_id] = spent_usd
            settling = self.threads.submit(self.settled, grant.trace_id, spent_usd)
            await asyncio.shield(asyncio.wrap_future(settling))

    def settled(self, trace_id: str, spent_usd: float) -> None:
        """In a thread. What cannot be settled now is tried again; of a process that dies before, the ledger's sums tell."""
        assert self.books is not None
        try:
            budgets.settle(self.books, trace_id, spent_usd)
            self.live.pop(trace_id, None)
        except SQLAlchemyError as error:
            log.warning("the budget of %s cannot be settled yet: %s", trace_id, first_line(error))

    def keep_alive(self, trace_id: str) -> None:
        """Renew the reservation for as long as the request is answered here."""
        self.live[trace_id] = None
        if self.renewing is None or self.renewing.done():
            self.renewing = asyncio.get_running_loop().create_task(self.renew())

    async def renew(self) -> None:
        while self.live:
            await asyncio.sleep(RENEW_S)
            await asyncio.to_thread(self.renew_now)

    def renew_now(self) -> None:
        """In a thread."""
        assert self.books is not None
        live = list(self.live.items())
        try:
            if live:
                budgets.renew(self.books, [trace_id for trace_id, _ in live], self.clock())
        except SQLAlchemyError as error:
            log.warning("reservations cannot be renewed: %s", first_line(error))
            return
        for trace_id, spent_usd in live:
            if spent_usd is not None:
                self.settled(trace_id, spent_usd)


def first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def key_hash(header: str) -> str:
    """Of the key in an Authorization header; empty if there is none."""
    scheme, _, key = header.partition(" ")
    return hashed(key.strip()) if scheme.lower() == "bearer" and key.strip() else ""
