"""The ledger's sums, read by bucket and group: whole days from the sums by the day, what is left from those by the hour."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Connection, Float, Select, cast, func, select, union_all

from deployments.costs.interval import DAY, Interval
from deployments.ledger import sum_tables
from deployments.ledger.schema import budgets, keys
from deployments.ledger.sum_tables import SumTable

Range = tuple[int, int]
"""since, until: Unix times, whole hours, `until` exclusive"""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which part of the traffic: of one key, of one tier, or all."""

    interval: Interval
    key: str | None = None
    tier: str | None = None

    def only(self, query: Select[Any], of: Any) -> Select[Any]:
        """of: the columns. A table without keys is of all."""
        if self.key is not None:
            query = query.where(of.key_id == self.key)
        return query if self.tier is None else query.where(of.tier == self.tier)


@dataclass(frozen=True, slots=True)
class Spans:
    """An interval as whole days, of which there may be none, and hours beside them."""

    days: Range
    hours: tuple[Range, ...]


def spans(connection: Connection, when: Interval) -> Spans:
    """Days after the last that has anything are whole too: so is the one that is not over, up to now."""
    if when.step_s != DAY:
        return Spans((0, 0), ((when.since, when.until),))
    first, last = -(-when.since // DAY) * DAY, when.until // DAY * DAY
    if when.until > last and when.until > latest(connection):
        last += DAY
    if last <= first:
        return Spans((0, 0), ((when.since, when.until),))
    beside = ((when.since, first), (last, when.until))
    return Spans((first, last), tuple((since, until) for since, until in beside if since < until))


def latest(connection: Connection) -> int:
    """Begin of the last hour that has a sum."""
    found = (connection.execute(select(func.max(of.table.c.hour))).scalar() for of in (sum_tables.CALLS, sum_tables.TRACES))
    return max(int(hour or 0) for hour in found)


def read(
    connection: Connection, hours: SumTable, days: SumTable, at: Spans, chosen: Chosen, groups: Sequence[str]
) -> list[dict[str, Any]]:
    """Sums of what is chosen, as rows of `groups` and the tally's values, in an order that is always the same.

    groups: may hold `at`, the begin of the bucket.
    """
    ranges = [(hours, one) for one in at.hours] + ([(days, at.days)] if at.days[0] < at.days[1] else [])
    step_s = chosen.interval.step_s
    inner = union_all(*(part(tally, range, chosen, groups, step_s) for tally, range in ranges)).subquery()
    summed = [whole(func.sum(inner.c[name]), hours.table.c[name].type).label(name) for name in hours.values]
    picked = [inner.c[name] for name in groups]
    query = select(*picked, *summed).group_by(*picked).order_by(*picked)
    names = (*groups, *hours.values)
    return [dict(zip(names, row, strict=True)) for row in connection.execute(query)]


def part(tally: SumTable, range: Range, chosen: Chosen, groups: Sequence[str], step_s: int) -> Select[Any]:
    of = tally.table.c
    time = of[tally.at]
    begin = (time if tally.span_s == step_s else time - time % step_s).label("at")
    picked = [begin if name == "at" else of[name] for name in groups]
    query = select(*picked, *(of[name] for name in tally.values)).where(time >= range[0], time < range[1])
    return chosen.only(query, of)


def whole(value: Any, kind: Any) -> Any:
    """PostgreSQL's sum of whole numbers is a decimal."""
    return cast(value, BigInteger if isinstance(kind, BigInteger) else Float(53))


def grouped(rows: Iterable[Mapping[str, Any]], groups: Sequence[str], values: Sequence[str]) -> list[dict[str, Any]]:
    """Sums of rows by fewer groups, in an order that is always the same."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = tuple(row[name] for name in groups)
        total = found.setdefault(key, dict(zip(groups, key, strict=True)) | dict.fromkeys(values, 0))
        for name in values:
            total[name] += row[name]
    return [found[key] for key in sorted(found)]


def key_names(connection: Connection) -> Mapping[str, Any]:
    """id -> its row, revoked ones too."""
    columns = (keys.c.id, keys.c.name, keys.c.revoked_s, keys.c.usd_per_day, keys.c.usd_per_month)
    return {row.id: row for row in connection.execute(select(*columns).order_by(keys.c.created_s))}


def spent(connection: Connection, periods: list[str]) -> Mapping[tuple[str, str], Any]:
    """(key, period) -> what it has spent and reserved."""
    rows = connection.execute(select(budgets).where(budgets.c.period.in_(periods)))
    return {(row.key_id, row.period): row for row in rows}
