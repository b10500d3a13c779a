"""Reads the ledger's sums by time and group: whole days from the sums by the day, the rest from those by the hour."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Connection, Float, Select, cast, func, select, union_all

from deployments.costs.interval import Interval
from deployments.ledger import sum_tables
from deployments.ledger.schema import budgets, keys
from deployments.ledger.sum_tables import SumTable
from router.costs.machine_time import DAY_S

Range = tuple[int, int]
"""since, until: Unix times of whole hours, `until` exclusive"""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The part of the traffic that a report is about: one key's, one tier's, or all."""

    interval: Interval
    key: str | None = None
    tier: str | None = None

    def only(self, query: Select[Any], columns: Any) -> Select[Any]:
        if self.key is not None:
            query = query.where(columns.key_id == self.key)
        return query if self.tier is None else query.where(columns.tier == self.tier)


@dataclass(frozen=True, slots=True)
class Spans:
    """An interval as whole days, of which there may be none, and the hours beside them."""

    days: Range
    hours: tuple[Range, ...]


def spans(connection: Connection, when: Interval) -> Spans:
    """A day in which the interval ends counts as whole if no sums come after the end, as is usual for today."""
    if when.step_s != DAY_S:
        return Spans((0, 0), ((when.since, when.until),))
    first, last = -(-when.since // DAY_S) * DAY_S, when.until // DAY_S * DAY_S
    if when.until > last and when.until > latest(connection):
        last += DAY_S
    if last <= first:
        return Spans((0, 0), ((when.since, when.until),))
    beside = ((when.since, first), (last, when.until))
    return Spans((first, last), tuple((since, until) for since, until in beside if since < until))


def latest(connection: Connection) -> int:
    """Begin of the latest hour that has a sum."""
    tables = (sum_tables.CALLS.table, sum_tables.TRACES.table)
    found = (connection.execute(select(func.max(table.c.hour))).scalar() for table in tables)
    return max(int(hour or 0) for hour in found)


def read_sums(
    connection: Connection, hours: SumTable, days: SumTable, at: Spans, chosen: Chosen, groups: Sequence[str]
) -> list[dict[str, Any]]:
    """Sums of what is chosen, as rows with `groups` and the tables' values, in a fixed order.

    hours, days: tables of the same values. groups: names of columns, or `at`, the begin of the time bucket.
    """
    ranges = [(hours, one) for one in at.hours] + ([(days, at.days)] if at.days[0] < at.days[1] else [])
    step_s = chosen.interval.step_s
    inner = union_all(*(part(table, range, chosen, groups, step_s) for table, range in ranges)).subquery()
    summed = [sum_as(inner.c[name], hours.table.c[name].type).label(name) for name in hours.values]
    picked = [inner.c[name] for name in groups]
    query = select(*picked, *summed).group_by(*picked).order_by(*picked)
    return [dict(row) for row in connection.execute(query).mappings()]


def part(table: SumTable, range: Range, chosen: Chosen, groups: Sequence[str], step_s: int) -> Select[Any]:
    columns = table.table.c
    time = columns[table.at]
    begin = (time if table.span_s == step_s else time - time % step_s).label("at")
    picked = [begin if name == "at" else columns[name] for name in groups]
    query = select(*picked, *(columns[name] for name in table.values)).where(time >= range[0], time < range[1])
    return chosen.only(query, columns)


def sum_as(column: Any, kind: Any) -> Any:
    """The sum in the column's own type: PostgreSQL's sum of integers is a decimal."""
    return cast(func.sum(column), BigInteger if isinstance(kind, BigInteger) else Float(53))


def grouped(rows: Iterable[Mapping[str, Any]], groups: Sequence[str], values: Sequence[str]) -> list[dict[str, Any]]:
    """Sums of rows by fewer groups, in a fixed order."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = tuple(row[name] for name in groups)
        total = found.setdefault(key, dict(zip(groups, key, strict=True)) | dict.fromkeys(values, 0))
        for name in values:
            total[name] += row[name]
    return [found[key] for key in sorted(found)]


def key_names(connection: Connection) -> Mapping[str, Any]:
    """id -> its row, revoked keys included."""
    columns = (keys.c.id, keys.c.name, keys.c.revoked_s, keys.c.usd_per_day, keys.c.usd_per_month)
    return {row.id: row for row in connection.execute(select(*columns).order_by(keys.c.created_s))}


def spent(connection: Connection, periods: list[str]) -> Mapping[tuple[str, str], Any]:
    """(key, period) -> the row with what it has spent and reserved."""
    rows = connection.execute(select(budgets).where(budgets.c.period.in_(periods)))
    return {(row.key_id, row.period): row for row in rows}
