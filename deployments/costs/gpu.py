"""The truth of the machines: accelerator time held, who used it, who bears what nobody used. The rules:
router/costs/machine_time.py."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, func, select

from deployments.costs.interval import DAY
from deployments.costs.sums import Chosen, Range, Spans
from deployments.ledger import machine_time_sums
from deployments.ledger.schema import closed_days, daily_machines
from router.costs.machine_time import NOBODY, OVER

Group = tuple[int, str, str]
"""at, tier, key: of what is nobody's NOBODY or OVER"""


@dataclass(frozen=True, slots=True)
class Machines:
    """Of what is chosen: accelerator-seconds and USD by MACHINE's names, over buckets and tiers, and over keys."""

    by_time: list[Mapping[str, Any]]
    by_key: list[Mapping[str, Any]]


def read(connection: Connection, chosen: Chosen, at: Spans) -> Machines:
    closed, ranges = parted(connection, at)
    fresh = [row for since, until in ranges for row in split(connection, since, until, chosen)]
    return Machines(
        [*of_closed(connection, closed, chosen, ("day", "tier")), *fresh],
        [row for row in (*of_closed(connection, closed, chosen, ("key_id",)), *fresh) if is_somebody(row["key_id"])],
    )


def parted(connection: Connection, at: Spans) -> tuple[Range, list[Range]]:
    """Days of which some are closed, and the ranges that have to be split anew."""
    first, last = at.days
    of = closed_days.c.day
    shut = set(connection.execute(select(of).where(of >= first, of < last)).scalars()) if first < last else set()
    found = list(at.hours)
    for day in range(first, last, DAY):
        if day not in shut:
            joined = bool(found) and found[-1][1] == day and found[-1] not in at.hours
            found[-1:] = [(found[-1][0], day + DAY)] if joined else [*found[-1:], (day, day + DAY)]
    return at.days, found


def split(connection: Connection, since: int, until: int, chosen: Chosen) -> Iterator[Mapping[str, Any]]:
    for line in machine_time_sums.lines(connection, since, until):
        if chosen.key in (None, line.group) and chosen.tier in (None, line.tier):
            bucket = line.at - line.at % chosen.interval.step_s
            yield {"at": bucket, "tier": line.tier, "key_id": line.group, **machine_time_sums.parts(line)}


def of_closed(connection: Connection, days: Range, chosen: Chosen, groups: tuple[str, ...]) -> list[Mapping[str, Any]]:
    """A day that is open has no rows."""
    of = daily_machines.c
    if days[0] >= days[1]:
        return []
    picked = [of[name].label("at" if name == "day" else name) for name in groups]
    query: Select[Any] = select(*picked, *(func.sum(of[name]).label(name) for name in machine_time_sums.MACHINE))
    query = chosen.only(query.where(of.day >= days[0], of.day < days[1]), of).group_by(*(of[name] for name in groups))
    names = [column.key for column in query.selected_columns]
    return [dict(zip(names, row, strict=True)) for row in connection.execute(query.order_by(*(of[name] for name in groups)))]


def is_somebody(key: str) -> bool:
    return key not in (NOBODY, OVER)
