"""Whose the machines' time was, from the sums: counted anew from the hours, or read of days whose books are closed.

A day's books are closed an hour after it is over, by the ledger's own thread, so that no reader splits months of hours. What
comes later than that opens the day again, in the transaction that writes it: closed books are never wrong, only missing.
The rules of the split: router/costs/machine_time.py.

Windows that are older than a day are merged into one for each hour, tier and price, as long as each begins where the last
ended: what was held stays the same to the second, and a window that is told again is still known to be there.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Select, Table, delete, func, insert, select, text, union

from deployments.ledger.rows import Row
from deployments.ledger.schema import closed_days, daily, daily_machines, hourly, hourly_held, windows
from deployments.ledger.statements import insert_new
from deployments.ledger.sum_tables import Sums
from router.costs.machine_time import DAY_S, HOUR_S, NOBODY, OVER, Held, Line, Used, split

CLOSE_AFTER_S = 3600
MERGE_AFTER_S = DAY_S
CLOCKS_S = 3600  # by which the clocks of machines that share a ledger may differ
POSTGRES_LOCK = 0x57E9D1  # any number of our own: who closes books, and who writes what is late, take turns
MOST_WINDOWS = 5_000  # looked at in one step

# -- the split -------------------------------------------------------------------------------------------------------------


def lines(connection: Connection, since: int, until: int) -> list[Line]:
    """Of whole hours: one line for each hour, tier and key, NOBODY's and what was measured beyond what was held included."""
    held = connection.execute(of_hours(hourly_held, since, until)).all()
    accelerators = {(row.hour, row.tier): row.accelerator_s / row.replica_s for row in held if row.replica_s > 0}
    usual = dict[str, float]()
    used = []
    for hour, tier, key, busy_s, usd in connection.execute(busy(since, until)):
        if (each := accelerators.get((hour, tier))) is None:
            usual = usual or usual_accelerators(connection)
            each = usual.get(tier, 1.0)
        used.append(Used(int(hour), tier, key, busy_s * each, usd))
    return split(used, [Held(int(row.hour), row.tier, row.accelerator_s, row.usd) for row in held])


def of_hours(table: Table, since: int, until: int) -> Select[Any]:
    return select(table).where(table.c.hour >= since, table.c.hour < until)


def busy(since: int, until: int) -> Select[Any]:
    """Replicas' busy seconds by hour, tier and key, of all keys: who idled is a question about all of them."""
    of = hourly.c
    groups = (of.hour, of.tier, of.key_id)
    query = select(*groups, func.sum(of.busy_s), func.sum(of.gpu_usd)).where(of.hour >= since, of.hour < until)
    return query.group_by(*groups).having(func.sum(of.busy_s) > 0)


def usual_accelerators(connection: Connection) -> dict[str, float]:
    """Of a replica, by tier: for calls of an hour of which no window tells."""
    of = hourly_held.c
    query = select(of.tier, func.sum(of.accelerator_s) / func.sum(of.replica_s)).where(of.replica_s > 0).group_by(of.tier)
    return {tier: float(each) for tier, each in connection.execute(query)}


MACHINE = tuple(column.name for column in daily_machines.columns if not column.primary_key)


def parts(line: Line) -> dict[str, float]:
    """A line's figures by MACHINE's names."""
    found = dict.fromkeys(MACHINE, 0.0)
    if line.group in (NOBODY, OVER):
        name = "nobody" if line.group == NOBODY else "over"
        return found | {f"{name}_s": line.seconds, f"{name}_usd": line.usd}
    return found | {"busy_s": line.busy_s, "idle_s": line.idle_s, "busy_usd": line.busy_usd, "idle_usd": line.idle_usd}


# -- closing a day ---------------------------------------------------------------------------------------------------------


def closable(connection: Connection, now: float) -> list[int]:
    """Days that are over and open, the latest first."""
    of_held = hourly_held.c.hour - hourly_held.c.hour % DAY_S
    known = union(select(daily.c.day), select(of_held)).subquery()
    day = known.c[0]
    query = select(day).where(day <= now - CLOSE_AFTER_S - DAY_S, day.not_in(select(closed_days.c.day))).order_by(day.desc())
    return [int(found) for found in connection.execute(query).scalars()]


def close(connection: Connection, day: int) -> None:
    """In a transaction that writes."""
    in_turn(connection)
    if not insert_new(connection, closed_days, [{"day": day}]):
        return
    sums: dict[tuple[str, str], dict[str, float]] = {}
    for line in lines(connection, day, day + DAY_S):
        total = sums.setdefault((line.tier, line.group), dict.fromkeys(MACHINE, 0.0))
        for name, value in parts(line).items():
            total[name] += value
    rows = [{"day": day, "tier": tier, "key_id": key, **total} for (tier, key), total in sums.items()]
    if rows:
        connection.execute(insert(daily_machines), rows)


def reopen(connection: Connection, sums: Sums) -> None:
    """What is about to change in the hours of `sums` changes the books of their days."""
    over = time.time() + CLOCKS_S - CLOSE_AFTER_S - DAY_S
    late = {day for at, *_ in sums if (day := int(at) - int(at) % DAY_S) <= over}
    if late:
        in_turn(connection)
        for table in (closed_days, daily_machines):
            connection.execute(delete(table).where(table.c.day.in_(sorted(late))))


def in_turn(connection: Connection) -> None:
    """SQLite has one writer at a time anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": POSTGRES_LOCK})


# -- merging windows -------------------------------------------------------------------------------------------------------


def mergeable(connection: Connection, since: int, now: float) -> tuple[list[int], int | None]:
    """Hours with windows that can be merged, and where to look on; None: all has been looked at. since: Unix time."""
    of = windows.c
    last = int((now - MERGE_AFTER_S) // HOUR_S) * HOUR_S
    query = select(windows).where(of.began_s >= since, of.began_s < last).order_by(of.began_s).limit(MOST_WINDOWS)
    rows = [row._asdict() for row in connection.execute(query)]
    hours = {hour_of(run[0]) for run in runs(rows) if len(run) > 1}
    return sorted(hours), hour_of(rows[-1]) if len(rows) == MOST_WINDOWS else None


def merge(connection: Connection, hour: int) -> int:
    """In a transaction that writes. Returns how many rows went."""
    in_turn(connection)
    query = select(windows).where(windows.c.began_s >= hour, windows.c.began_s < hour + HOUR_S)
    many = [run for run in runs([row._asdict() for row in connection.execute(query)]) if len(run) > 1]
    for run in many:
        these = windows.c.began_s.in_([row["began_s"] for row in run])
        connection.execute(delete(windows).where(windows.c.tier == run[0]["tier"], these))
        connection.execute(insert(windows), [merged(run)])
    return sum(len(run) - 1 for run in many)


def runs(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Windows of one tier, hour, kind and price, each of which begins where the last ended."""
    for _, group in groupby(sorted(rows, key=lambda row: (row["tier"], row["began_s"])), alike):
        run: list[Row] = []
        for row in group:
            if run and row["began_s"] != run[-1]["began_s"] + run[-1]["seconds"]:
                yield run
                run = []
            run.append(row)
        yield run


def alike(row: Row) -> tuple[object, ...]:
    return row["tier"], hour_of(row), row["accelerators"], row["usd_per_accelerator_hour"]


def hour_of(row: Row) -> int:
    return int(row["began_s"]) // HOUR_S * HOUR_S


def merged(run: Sequence[Row]) -> Row:
    seconds = sum(row["seconds"] for row in run)
    return run[0] | {"seconds": seconds, "replicas": sum(row["seconds"] * row["replicas"] for row in run) / seconds}


def not_merged(connection: Connection, rows: Sequence[Row]) -> list[Row]:
    """Without windows that lie within one that is there: told before, and merged since."""
    over = time.time() + CLOCKS_S - MERGE_AFTER_S
    old = [row["began_s"] for row in rows if row["began_s"] < over]
    if not old:
        return list(rows)
    in_turn(connection)
    of = windows.c
    query = select(of.tier, of.began_s, of.seconds).where(of.began_s > min(old) - 2 * HOUR_S, of.began_s <= max(old))
    there: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for tier, began_s, seconds in connection.execute(query.where(of.seconds > 0)):
        for hour in {began_s // HOUR_S, int(began_s + seconds - 1) // HOUR_S}:
            there.setdefault((tier, hour), []).append((began_s, began_s + seconds))
    return [row for row in rows if not covered(row, there.get((row["tier"], row["began_s"] // HOUR_S), ()))]


def covered(row: Row, spans: Iterable[tuple[float, float]]) -> bool:
    return any(began <= row["began_s"] < ended for began, ended in spans)
