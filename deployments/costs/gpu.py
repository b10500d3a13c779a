"""Accelerator time that was held: who used it, and who bears what nobody used. The rules: router/costs/machine_time.py."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from deployments.costs.sums import Chosen, Range, Spans
from deployments.ledger import machine_time_sums
from deployments.ledger.schema import closed_days, daily_machines
from router.costs.machine_time import DAY_S, NOBODY, OVER


@dataclass(frozen=True, slots=True)
class MachineTime:
    """Rows of accelerator-seconds and USD, by the names in MACHINE."""

    by_time: list[Mapping[str, Any]]
    """by bucket and tier, with what nobody used"""
    by_key: list[Mapping[str, Any]]


def read_machine_time(connection: Connection, chosen: Chosen, at: Spans) -> MachineTime:
    fresh = [row for since, until in open_ranges(connection, at) for row in split(connection, since, until, chosen)]
    by_key = [*of_closed_days(connection, at.days, chosen, ("key_id",)), *fresh]
    return MachineTime(
        [*of_closed_days(connection, at.days, chosen, ("day", "tier")), *fresh],
        [row for row in by_key if row["key_id"] not in (NOBODY, OVER)],
    )


def open_ranges(connection: Connection, at: Spans) -> list[Range]:
    """The parts of the interval that no closed day covers."""
    first, last = at.days
    day = closed_days.c.day
    closed = set(connection.execute(select(day).where(day >= first, day < last)).scalars()) if first < last else set()
    days: list[Range] = []
    for begin in range(first, last, DAY_S):
        if begin in closed:
            continue
        if days and days[-1][1] == begin:
            days[-1] = (days[-1][0], begin + DAY_S)
        else:
            days.append((begin, begin + DAY_S))
    return [*at.hours, *days]


def split(connection: Connection, since: int, until: int, chosen: Chosen) -> Iterator[Mapping[str, Any]]:
    for line in machine_time_sums.lines(connection, since, until):
        if chosen.key in (None, line.group) and chosen.tier in (None, line.tier):
            bucket = line.at - line.at % chosen.interval.step_s
            yield {"at": bucket, "tier": line.tier, "key_id": line.group, **machine_time_sums.parts(line)}


def of_closed_days(connection: Connection, days: Range, chosen: Chosen, groups: tuple[str, ...]) -> list[Mapping[str, Any]]:
    """Sums over closed days; open days have no rows."""
    columns = daily_machines.c
    if days[0] >= days[1]:
        return []
    picked = [columns[name].label("at" if name == "day" else name) for name in groups]
    query = select(*picked, *(func.sum(columns[name]).label(name) for name in machine_time_sums.MACHINE))
    query = chosen.only(query.where(columns.day >= days[0], columns.day < days[1]), columns)
    query = query.group_by(*(columns[name] for name in groups)).order_by(*(columns[name] for name in groups))
    return [dict(row) for row in connection.execute(query).mappings()]
