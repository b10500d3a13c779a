"""The tables of sums: what each is grouped by, and how new figures are added. Coarser sums are made of finer ones."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import add

from sqlalchemy import Connection, Table

from deployments.ledger import schema
from deployments.ledger.rows import Row
from deployments.ledger.statements import add_up
from router.costs.machine_time import DAY_S, HOUR_S

Sums = Mapping[tuple[int | str, ...], Sequence[float]]
"""(begin of the hour or day, *groups) -> values in the order of the table's columns"""


@dataclass(frozen=True, slots=True)
class SumTable:
    """One table of sums. span_s: length of its time buckets."""

    table: Table
    span_s: int
    groups: tuple[str, ...]

    @property
    def at(self) -> str:
        """The column that holds the time."""
        return "day" if self.span_s == DAY_S else "hour"

    @property
    def values(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.table.columns if not column.primary_key)

    def rows(self, sums: Sums) -> list[Row]:
        """Sorted, so that processes that add to the same sums wait for each other but never deadlock."""
        names = (self.at, *self.groups, *self.values)
        return [dict(zip(names, (*key, *sums[key]), strict=True)) for key in sorted(sums)]


CALLS = SumTable(schema.hourly, HOUR_S, ("key_id", "tier", "role"))
CALLS_BY_DAY = SumTable(schema.daily, DAY_S, CALLS.groups)
TRACES = SumTable(schema.hourly_traces, HOUR_S, ("key_id", *schema.DECIDED))
TRACES_BY_DAY = SumTable(schema.daily_traces, DAY_S, TRACES.groups)
TOTALS_BY_DAY = SumTable(schema.daily_totals, DAY_S, schema.DECIDED)
KEYS_BY_DAY = SumTable(schema.daily_keys, DAY_S, ("key_id", "tier", "flow"))
HELD = SumTable(schema.hourly_held, HOUR_S, ("tier",))


def summed(rows: Iterable[tuple[Row, Sequence[float]]], table: SumTable) -> Sums:
    """Sums of rows, each given with its figures, by the hour or day in which they began."""
    found: dict[tuple[int | str, ...], list[float]] = {}
    span_s, groups = table.span_s, table.groups
    for row, values in rows:
        key = (int(row["began_s"] // span_s) * span_s, *(row[name] for name in groups))
        found[key] = list(map(add, found[key], values)) if key in found else list(values)
    return found


def coarser(sums: Sums, source: SumTable, to: SumTable) -> Sums:
    """The same sums by fewer groups, or by the day."""
    places = [1 + source.groups.index(name) for name in to.groups]
    found: dict[tuple[int | str, ...], Sequence[float]] = {}
    for key, values in sums.items():
        at = int(key[0])
        coarse = (at - at % to.span_s, *(key[place] for place in places))
        found[coarse] = list(map(add, found[coarse], values)) if coarse in found else values
    return found


def add_sums(connection: Connection, table: SumTable, sums: Sums) -> None:
    if sums:
        add_up(connection, table.table, table.rows(sums))
