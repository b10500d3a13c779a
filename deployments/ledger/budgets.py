"""Budgets in the ledger's database: money is set aside before the work, settled after it, and given back if the process dies.

One UPDATE for each period sets money aside if it is there, all in one transaction, so concurrent requests, in any number of
processes, never hold more than the limit. A reservation's row says that its money is not settled yet. Whoever deletes the
row counts what was spent, so it is counted once: by the ledger's own transaction (`settle_in`) or by the ingress (`settle`).

A reservation is a lease that its process renews. When it runs out, the money is given back, but the row stays with no money
in it: a process that was only slow still finds it and counts what it spent.

These transactions are not synced to the disk one by one. They survive a killed process; after a power cut, when no request
is left either, `reconcile` takes what was spent from the ledger, whose rows are synced.

Locks are taken in one order: reservations, then budgets by key and period (a month before its days).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, ScalarSelect, case, func, insert, literal, select, update
from sqlalchemy import delete as remove

from deployments.ledger.database import INSERT, connect, writing
from deployments.ledger.schema import budgets, hourly, reservations
from router.config import Ledger
from router.errors import BudgetSpent
from router.limits.key_limits import Key, Period, day_of, month_of, period_named
from router.trace import UNASKED

LEASE_S = 300.0  # after this a reservation that nobody renewed is given back
FORGET_S = 7 * 86_400.0  # after this the row of one that was given back is deleted
IN_FLIGHT_S = 5.0  # Retry-After where only requests in flight stand in the way
DUST = 1e-9  # share of a budget that sums of floating point numbers may be off by
RESERVATION = (reservations.c.id, reservations.c.key_id, reservations.c.usd, reservations.c.periods)
Place = tuple[str, str]
"""(key id, period's name)"""


class BudgetFull(Exception):
    """The period does not hold what is asked for."""

    def __init__(self, period: Period, limit_usd: float) -> None:
        self.period, self.limit_usd = period, limit_usd


def unsynced(engine: Engine) -> Engine:
    """An engine on the same database for the functions here. PostgreSQL is told not to sync in each transaction instead."""
    if engine.dialect.name != "sqlite":
        return engine
    url = engine.url.update_query_dict({"synchronous": "NORMAL"})
    return connect(Ledger(url=url.render_as_string(hide_password=False)))


@contextmanager
def writing_unsynced(engine: Engine) -> Iterator[Connection]:
    """`writing` without waiting for the disk, where the engine is `unsynced`."""
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
        yield connection


def reserve(engine: Engine, trace_id: str, key: Key, usd: float, now_s: float, began_s: float | None = None) -> None:
    """Set `usd` aside in each of the key's periods, or in none. Raises BudgetSpent.

    Before it refuses, it takes back what dead processes hold. began_s: when the request began, which decides the day and month
    that it counts in, as in the ledger's sums; None: now.
    """
    try:
        reserve_once(engine, trace_id, key, usd, now_s, now_s if began_s is None else began_s)
    except BudgetFull as full:
        if not expire(engine, now_s):
            raise refusal(engine, key, full, usd, now_s) from None
        reserve(engine, trace_id, key, usd, now_s, began_s)


def reserve_once(engine: Engine, trace_id: str, key: Key, usd: float, now_s: float, began_s: float) -> None:
    """Raises BudgetFull."""
    periods = key.budgets(began_s)
    row = {"id": trace_id, "key_id": key.id, "usd": usd, "expires_s": now_s + LEASE_S}
    with writing_unsynced(engine) as connection:
        for period, limit_usd in periods:
            if not reserve_in(connection, key.id, period, usd, limit_usd):
                raise BudgetFull(period, limit_usd)
        connection.execute(insert(reservations).values(**row, periods=json.dumps([period.name for period, _ in periods])))


def reserve_in(connection: Connection, key_id: str, period: Period, usd: float, limit_usd: float) -> bool:
    """Whether the period had room. A new period begins with what the ledger says was spent in it."""
    fits = budgets.c.spent_usd + budgets.c.reserved_usd + usd <= limit_usd * (1 + DUST)
    statement = update(budgets).where(at(key_id, period.name), fits).values(reserved_usd=budgets.c.reserved_usd + usd)
    if connection.execute(statement).rowcount:
        return True
    begin(connection, key_id, period)
    return bool(connection.execute(statement).rowcount)


def begin(connection: Connection, key_id: str, period: Period) -> None:
    """Insert the period's row if it is missing. Of two processes the second waits for the first and changes nothing."""
    first = select(literal(key_id), literal(period.name), in_ledger(key_id, period), literal(0.0)).where(literal(1) == 1)
    into = INSERT[connection.dialect.name](budgets).from_select(["key_id", "period", "spent_usd", "reserved_usd"], first)
    connection.execute(into.on_conflict_do_nothing())


def at(key_id: str, period: str) -> ColumnElement[bool]:
    return (budgets.c.key_id == key_id) & (budgets.c.period == period)


def in_ledger(key_id: str, period: Period) -> ScalarSelect[Any]:
    """The cost of all calls of that key in that period, as a subquery."""
    within = (hourly.c.key_id == key_id) & (hourly.c.hour >= int(period.began_s)) & (hourly.c.hour < int(period.ends_s))
    within &= hourly.c.role.not_in(UNASKED)  # the key did not ask for them
    return select(func.coalesce(func.sum(hourly.c.cost_usd), 0.0)).where(within).scalar_subquery()


def refusal(engine: Engine, key: Key, full: BudgetFull, usd: float, now_s: float) -> BudgetSpent:
    with engine.connect() as connection:
        row = connection.execute(select(budgets).where(at(key.id, full.period.name))).one_or_none()
        if row:
            spent, held = row.spent_usd, row.reserved_usd
        else:  # the period's first request is refused, which rolled its row back
            spent, held = connection.scalar(select(in_ledger(key.id, full.period))) or 0.0, 0.0
    passing = held > 0 and spent + usd <= full.limit_usd
    wait_s = IN_FLIGHT_S if passing else max(0.0, full.period.ends_s - now_s)
    left = full.limit_usd - spent - held
    left = left if left > DUST * full.limit_usd else 0.0
    return BudgetSpent(full.limit_usd, full.period.kind, left, usd, wait_s, held if passing else 0.0)


# -- after the work --------------------------------------------------------------------------------------------------------


def settle_in(connection: Connection, spent: Mapping[str, float]) -> None:
    """Count what requests have spent, inside a transaction that writes: the ledger's, so that rows and budgets always agree.

    spent: trace id -> USD. Traces without a reservation, or settled before, change nothing.
    """
    sums: dict[Place, tuple[float, float]] = {}
    for row in take(connection, sorted(spent)):
        for place in places(row):
            held, paid = sums.get(place, (0.0, 0.0))
            sums[place] = (held + row.usd, paid + spent[row.id])
    for place, (held, paid) in sorted(sums.items()):
        release(connection, place, held, budgets.c.spent_usd + paid)


def take(connection: Connection, ids: Sequence[str]) -> list[Row[Any]]:
    """Delete reservations and return them."""
    found: list[Row[Any]] = []
    for part in (ids[i : i + 500] for i in range(0, len(ids), 500)):
        found += connection.execute(remove(reservations).where(reservations.c.id.in_(part)).returning(*RESERVATION)).all()
    return found


def places(reservation: Row[Any]) -> list[Place]:
    return [(reservation.key_id, period) for period in json.loads(reservation.periods)]


def release(connection: Connection, place: Place, held: float, spent: ColumnElement[Any]) -> None:
    """Free what reservations held. spent: what the period has spent from now on."""
    left = budgets.c.reserved_usd - held
    change = update(budgets).where(at(*place)).values(reserved_usd=case((left > DUST * held, left), else_=0.0), spent_usd=spent)
    connection.execute(change)


def settle(engine: Engine, trace_id: str, spent_usd: float) -> None:
    """`settle_in` for one request, in a transaction of its own, unless the ledger has done it."""
    with engine.connect() as connection:
        if connection.scalar(select(reservations.c.id).where(reservations.c.id == trace_id)) is None:
            return
    with writing_unsynced(engine) as connection:
        settle_in(connection, {trace_id: spent_usd})


# -- leases ----------------------------------------------------------------------------------------------------------------


def renew(engine: Engine, ids: Iterable[str], now_s: float) -> None:
    """Renew the leases of requests that are still being answered."""
    with writing_unsynced(engine) as connection:
        mine = reservations.c.id.in_(list(ids)) & (reservations.c.usd > 0)
        connection.execute(update(reservations).where(mine).values(expires_s=now_s + LEASE_S))


def expire(engine: Engine, now_s: float) -> int:
    """Give back what dead processes hold. Returns how many reservations that were.

    What they had spent and recorded is in the ledger: a period never has less spent than the ledger says.
    """
    stale = (reservations.c.expires_s < now_s) & (reservations.c.usd > 0)
    with engine.connect() as connection:
        found = connection.execute(select(*RESERVATION).where(stale).order_by(reservations.c.id).limit(1000)).all()
    if not found:
        return 0
    with writing(engine) as connection:
        emptied = [row for row in found if empty(connection, row.id, stale)]
        sums: dict[Place, float] = {}
        for row in emptied:
            for place in places(row):
                sums[place] = sums.get(place, 0.0) + row.usd
        for (key_id, period), held in sorted(sums.items()):
            release(connection, (key_id, period), held, at_least_in_ledger(key_id, period))
        connection.execute(remove(reservations).where(reservations.c.usd <= 0, reservations.c.expires_s < now_s - FORGET_S))
    return len(emptied)


def empty(connection: Connection, trace_id: str, stale: ColumnElement[bool]) -> bool:
    """Take the money out of a stale reservation. False: another process has done it."""
    return bool(connection.execute(update(reservations).where(reservations.c.id == trace_id, stale).values(usd=0.0)).rowcount)


def at_least_in_ledger(key_id: str, period: str) -> ColumnElement[Any]:
    known = in_ledger(key_id, period_named(period))
    return case((budgets.c.spent_usd < known, known), else_=budgets.c.spent_usd)


def reconcile(engine: Engine, now_s: float) -> None:
    """Raise what was spent this day and month to what the ledger says. To be called when a process starts."""
    names = [day_of(now_s).name, month_of(now_s).name]
    with writing(engine) as connection:
        current = select(budgets.c.key_id, budgets.c.period).where(budgets.c.period.in_(names))
        for key_id, period in connection.execute(current.order_by(budgets.c.key_id, budgets.c.period)).all():
            known = at_least_in_ledger(key_id, period)
            connection.execute(update(budgets).where(at(key_id, period)).values(spent_usd=known))
