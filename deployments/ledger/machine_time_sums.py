"""Who used the machines' time and who bears its idle part: counted from the sums by the hour, or read of days that are closed.

An hour after a day is over, the ledger's own thread closes it: it stores the day's split, so that no reader has to split
months of hours. A late row reopens its day in the transaction that writes it, so a closed day is never wrong, only missing.
The rules of the split: router/costs/machine_time.py.

Windows older than a day are merged into one for each hour, tier and price, as long as each begins where the last ended. What
was held stays the same to the second, and a window that is reported again is still recognised.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Select, delete, func, insert, inspect, select, text, union

from deployments.ledger.rows import Row
from deployments.ledger.schema import closed_days, daily, daily_machines, hourly, hourly_held, shared_replicas, windows
from deployments.ledger.statements import insert_new
from deployments.ledger.sum_tables import Sums
from router.costs.machine_time import DAY_S, HOUR_S, NOBODY, OVER, Held, Line, Used, split

CLOSE_AFTER_S = 3600  # after the end of a day
MERGE_AFTER_S = DAY_S  # after the begin of a window
CLOCKS_S = 3600  # most by which the clocks of machines that share a ledger may differ
POSTGRES_LOCK = 0x57E9D1  # an arbitrary number for the advisory lock of closing a day and writing late rows
MOST_WINDOWS = 5_000  # windows looked at in one step
MACHINE = tuple(column.name for column in daily_machines.columns if not column.primary_key)
"""the figures of a split, which are the columns of daily_machines"""

# -- the split -------------------------------------------------------------------------------------------------------------


def lines(connection: Connection, since: int, until: int) -> list[Line]:
    """Split whole hours: one line for each hour, tier and key, including NOBODY and OVER.

    What the calls of a rung used is its host's time, in hours in which it held none itself.
    """
    hours = select(hourly_held).where(hourly_held.c.hour >= since, hourly_held.c.hour < until)
    held = connection.execute(hours).all()
    accelerators = {(row.hour, row.tier): row.accelerator_s / row.replica_s for row in held if row.replica_s > 0}
    usual, shared = dict[str, float](), hosts(connection)
    used = []
    for hour, named, key, busy_s, usd in connection.execute(busy(since, until)):
        tier = named if (hour, named) in accelerators else shared.get(named, named)
        if (each := accelerators.get((hour, tier))) is None:
            usual = usual or usual_accelerators(connection)
            each = usual.get(tier, 1.0)
        used.append(Used(int(hour), tier, key, busy_s * each, usd))
    return split(used, [Held(int(row.hour), row.tier, row.accelerator_s, row.usd) for row in held])


def busy(since: int, until: int) -> Select[Any]:
    """Replicas' busy seconds by hour, tier and key. Of all keys, because a key's idle share depends on the others."""
    columns = hourly.c
    groups = (columns.hour, columns.tier, columns.key_id)
    query = select(*groups, func.sum(columns.busy_s), func.sum(columns.gpu_usd))
    query = query.where(columns.hour >= since, columns.hour < until)
    return query.group_by(*groups).having(func.sum(columns.busy_s) > 0)


def hosts(connection: Connection) -> dict[str, str]:
    """tier -> the tier whose replicas it shares, as of the last start."""
    if not inspect(connection).has_table(shared_replicas.name):  # a ledger that no newer server has opened yet
        return {}
    return {tier: host for tier, host in connection.execute(select(shared_replicas.c.tier, shared_replicas.c.host))}


def usual_accelerators(connection: Connection) -> dict[str, float]:
    """tier -> accelerators of a replica, for calls in hours without a window."""
    columns = hourly_held.c
    each = func.sum(columns.accelerator_s) / func.sum(columns.replica_s)
    query = select(columns.tier, each).where(columns.replica_s > 0).group_by(columns.tier)
    return {tier: float(each) for tier, each in connection.execute(query)}


def parts(line: Line) -> dict[str, float]:
    """A line's figures by the names in MACHINE."""
    found = dict.fromkeys(MACHINE, 0.0)
    if line.group in (NOBODY, OVER):
        name = "nobody" if line.group == NOBODY else "over"
        return found | {f"{name}_s": line.seconds, f"{name}_usd": line.usd}
    return found | {"busy_s": line.busy_s, "idle_s": line.idle_s, "busy_usd": line.busy_usd, "idle_usd": line.idle_usd}


# -- closing a day ---------------------------------------------------------------------------------------------------------


def closable(connection: Connection, now: float) -> list[int]:
    """Open days that are over, the latest first."""
    days_held = hourly_held.c.hour - hourly_held.c.hour % DAY_S
    known = union(select(daily.c.day), select(days_held)).subquery()
    day = known.c[0]
    query = select(day).where(day <= now - CLOSE_AFTER_S - DAY_S, day.not_in(select(closed_days.c.day))).order_by(day.desc())
    return [int(found) for found in connection.execute(query).scalars()]


def close_day(connection: Connection, day: int) -> None:
    """To be called in a transaction that writes."""
    take_turn(connection)
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
    """Reopen the closed days whose hours these sums are about to change."""
    over = time.time() + CLOCKS_S - CLOSE_AFTER_S - DAY_S
    late = {day for at, *_ in sums if (day := int(at) - int(at) % DAY_S) <= over}
    if late:
        take_turn(connection)
        for table in (closed_days, daily_machines):
            connection.execute(delete(table).where(table.c.day.in_(sorted(late))))


def take_turn(connection: Connection) -> None:
    """Take the lock until the transaction ends. SQLite has one writer at a time anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": POSTGRES_LOCK})


# -- merging windows -------------------------------------------------------------------------------------------------------


def mergeable(connection: Connection, since: int, now: float) -> tuple[list[int], int | None]:
    """Hours with windows to merge, and the time to go on from; None: nothing is left to look at. since: Unix time."""
    last = int((now - MERGE_AFTER_S) // HOUR_S) * HOUR_S
    in_time = (windows.c.began_s >= since) & (windows.c.began_s < last)
    query = select(windows).where(in_time).order_by(windows.c.began_s).limit(MOST_WINDOWS)
    rows = [row._asdict() for row in connection.execute(query)]
    hours = {hour_of(run[0]) for run in runs(rows) if len(run) > 1}
    return sorted(hours), hour_of(rows[-1]) if len(rows) == MOST_WINDOWS else None


def merge(connection: Connection, hour: int) -> int:
    """Merge the hour's windows. To be called in a transaction that writes. Returns by how many rows there are fewer."""
    take_turn(connection)
    query = select(windows).where(windows.c.began_s >= hour, windows.c.began_s < hour + HOUR_S)
    many = [run for run in runs([row._asdict() for row in connection.execute(query)]) if len(run) > 1]
    for run in many:
        these = windows.c.began_s.in_([row["began_s"] for row in run])
        connection.execute(delete(windows).where(windows.c.tier == run[0]["tier"], these))
        connection.execute(insert(windows), [merged(run)])
    return sum(len(run) - 1 for run in many)


def runs(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Groups of windows of the same tier, hour, accelerators and price, each of which begins where the last ended."""
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
    """The windows without those within a stored one: those were reported before and have been merged since."""
    over = time.time() + CLOCKS_S - MERGE_AFTER_S
    old = [row["began_s"] for row in rows if row["began_s"] < over]
    if not old:
        return list(rows)
    take_turn(connection)
    at, seconds = windows.c.began_s, windows.c.seconds
    query = select(windows.c.tier, at, at + seconds).where(at > min(old) - 2 * HOUR_S, at <= max(old), seconds > 0)
    stored: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for tier, began_s, ended_s in connection.execute(query):
        for hour in {began_s // HOUR_S, int(ended_s - 1) // HOUR_S}:
            stored.setdefault((tier, hour), []).append((began_s, ended_s))
    spans = [stored.get((row["tier"], row["began_s"] // HOUR_S), []) for row in rows]
    return [row for row, there in zip(rows, spans, strict=True) if not any(a <= row["began_s"] < b for a, b in there)]
