"""The hourly tables as columns, by hour or by UTC day. Sums only, so a million requests are some thousand rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import BigInteger, Connection, Table, cast, func, select

from deployments.costs.interval import HOUR, Interval
from deployments.schema import budgets, hourly, hourly_traces, keys, windows

TYPES = {"at": pa.int64(), "number": pa.int64(), "amount": pa.float64(), "name": pa.string()}


@dataclass(frozen=True, slots=True)
class Kind:
    """Which columns of a table are groups and which are summed."""

    table: Table
    groups: tuple[str, ...]

    @property
    def values(self) -> list[str]:
        return [column.name for column in self.table.columns if not column.primary_key]

    @property
    def schema(self) -> pa.Schema:
        kinds = {c.name: "number" if isinstance(c.type, BigInteger) else "amount" for c in self.table.columns}
        fields = [("at", TYPES["at"]), *((name, TYPES["name"]) for name in self.groups)]
        return pa.schema([*fields, *((name, TYPES[kinds[name]]) for name in self.values)])


CALLS = Kind(hourly, ("key_id", "tier", "role"))
REQUESTS = Kind(hourly_traces, ("key_id", "tier", "target", "reason", "flow"))


def bucket(column: Any, step_s: int) -> Any:
    """The begin of the hour or UTC day that holds a Unix time."""
    return (column - column % step_s).label("at")


def read(connection: Connection, kind: Kind, since: int, until: int, step_s: int) -> pa.Table:
    """Sums of [since, until), whole hours, by bucket and group."""
    of = kind.table.c
    groups = [bucket(of.hour, step_s), *(of[name] for name in kind.groups)]
    # PostgreSQL's sum of whole numbers is a decimal.
    summed = [cast(func.sum(of[name]), of[name].type).label(name) for name in kind.values]
    query = select(*groups, *summed).where(of.hour >= since, of.hour < until).group_by(*groups)
    return as_table(connection.execute(query).all(), kind.schema)


def as_table(rows: Sequence[Any], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ([] for _ in schema)
    return pa.table([pa.array(list(column), field.type) for column, field in zip(columns, schema, strict=True)], schema=schema)


def only(table: pa.Table, **wanted: str | None) -> pa.Table:
    """The rows whose columns have these values; None: any."""
    for name, value in wanted.items():
        if value is not None:
            table = table.filter(pc.equal(table[name], value))
    return table


def grouped(table: pa.Table, groups: Sequence[str], values: Sequence[str]) -> list[dict[str, Any]]:
    """Sums by group, in an order that is always the same; with no groups one row."""
    summed = table.group_by(list(groups), use_threads=False).aggregate([(name, "sum") for name in values])
    rows = summed.rename_columns([name.removesuffix("_sum") for name in summed.column_names]).to_pylist()
    return sorted(rows, key=lambda row: tuple(row[name] for name in groups))


def held(connection: Connection, since: int, until: int) -> list[Any]:
    """Accelerator-seconds held and what they cost, by hour and tier. usd is null where no window had a price."""
    of = windows.c
    at = bucket(of.began_s, HOUR)
    seconds = of.seconds * of.replicas * of.accelerators
    usd = func.sum(seconds * of.usd_per_accelerator_hour / 3600.0).label("usd")
    query = select(at, of.tier, func.sum(seconds).label("seconds"), usd)
    return list(connection.execute(query.where(of.began_s >= since, of.began_s < until).group_by(at, of.tier)))


def busy(connection: Connection, since: int, until: int) -> list[Any]:
    """Replicas' busy seconds by hour, tier and key, of all tiers and keys: who idled is a question about all of them."""
    of = hourly.c
    groups = [of.hour, of.tier, of.key_id]
    query = select(*groups, func.sum(of.busy_s).label("busy_s"), func.sum(of.gpu_usd).label("gpu_usd"))
    return list(connection.execute(query.where(of.hour >= since, of.hour < until).group_by(*groups)))


def prints(connection: Connection, when: Interval, step_s: int) -> Mapping[int, tuple[Any, ...]]:
    """By bucket, what changes when a call is added or measured: a bucket with the same print need not be read again."""
    of = hourly.c
    at = bucket(of.hour, step_s)
    query = select(at, func.sum(of.calls), func.sum(of.busy_s), func.sum(of.cost_usd), func.count())
    query = query.where(of.hour >= when.since, of.hour < when.until).group_by(at)
    return {int(row[0]): tuple(map(float, row[1:])) for row in connection.execute(query)}


def key_names(connection: Connection) -> Mapping[str, Any]:
    """id -> its row, revoked ones too."""
    columns = (keys.c.id, keys.c.name, keys.c.revoked_s, keys.c.usd_per_day, keys.c.usd_per_month)
    return {row.id: row for row in connection.execute(select(*columns).order_by(keys.c.created_s))}


def spent(connection: Connection, periods: list[str]) -> Mapping[tuple[str, str], Any]:
    """(key, period) -> what it has spent and reserved."""
    rows = connection.execute(select(budgets).where(budgets.c.period.in_(periods)))
    return {(row.key_id, row.period): row for row in rows}


Reader = Callable[[Connection, int, int, int], pa.Table]
"""since, until, step_s -> a table whose first column is `at`"""
