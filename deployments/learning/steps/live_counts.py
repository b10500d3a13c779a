"""How requests went that one artefact decided, from the ledger: the figures by which a canary is stopped, and what was saved."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Table, func, select

from deployments.ledger.schema import calls, daily_totals, hourly, hourly_traces, traces
from router.costs.machine_time import DAY_S, HOUR_S
from router.trace import UNASKED

MOST_REQUESTS = 5_000  # the newest ones of an artefact, by which it is judged


@dataclass(frozen=True, slots=True)
class Decided:
    """Requests whose tier one artefact chose, the newest MOST_REQUESTS of them at most."""

    requests: int = 0
    errors: int = 0
    """status 500 and above"""
    escalated: int = 0
    """a smaller tier's answer was looked at and another tier's given"""
    usd: float = 0.0
    p95_s: float | None = None
    """of a whole answered request; None: none was answered"""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def decided(connection: Connection, router: str, since_s: float) -> Decided:
    """router: digest of the artefact; empty: of requests that went to the largest tier because there was none."""
    newest = (
        select(traces.c.id, traces.c.status, traces.c.took_s, traces.c.cost_usd, traces.c.tier)
        .where(traces.c.began_s >= since_s, func.coalesce(traces.c.router, "") == router, traces.c.wanted.like("auto%"))
        .order_by(traces.c.began_s.desc())
        .limit(MOST_REQUESTS)
        .subquery()
    )
    rows = connection.execute(select(newest.c.status, newest.c.took_s, newest.c.cost_usd)).all()
    attempts = select(func.count(calls.c.trace_id.distinct())).join(newest, newest.c.id == calls.c.trace_id)
    escalated = connection.execute(attempts.where(calls.c.role == "attempt", calls.c.tier != newest.c.tier)).scalar_one()
    took = sorted(row.took_s for row in rows if row.status < 400)
    return Decided(
        requests=len(rows),
        errors=sum(row.status >= 500 for row in rows),
        escalated=int(escalated),
        usd=sum(row.cost_usd for row in rows),
        p95_s=took[min(len(took) - 1, int(0.95 * len(took)))] if took else None,
    )


# -- sums ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Saved:
    """What requests cost in an interval, and what they would have cost on the top tier alone. Whole hours are counted."""

    requests: int = 0
    cost_usd: float = 0.0
    """of the requests whose counterfactual is known"""
    counterfactual_usd: float = 0.0
    unasked_usd: float = 0.0
    """of calls for which no key asked: audits, fills, judging"""

    @property
    def saved_usd(self) -> float:
        """What audits and learning cost is taken off."""
        return self.counterfactual_usd - self.cost_usd - self.unasked_usd

    def as_json(self) -> dict[str, Any]:
        share = self.saved_usd / self.counterfactual_usd if self.counterfactual_usd > 0 else None
        return {**asdict(self), "saved_usd": self.saved_usd, "saved_share": share}


def saved(connection: Connection, since_s: float, until_s: float) -> Saved:
    """Sums of the hours from the one that `since_s` is in; whole days are read as such."""
    first, last = since_s - since_s % HOUR_S, until_s
    first_day, last_day = first + -first % DAY_S, last - last % DAY_S
    if first_day >= last_day:
        found = [sums(connection, hourly_traces, "hour", first, last)]
    else:
        found = [
            sums(connection, hourly_traces, "hour", first, first_day),
            sums(connection, daily_totals, "day", first_day, last_day),
            sums(connection, hourly_traces, "hour", last_day, last),
        ]
    spent = select(func.sum(hourly.c.cost_usd)).where(hourly.c.hour >= first, hourly.c.hour < last, hourly.c.role.in_(UNASKED))
    return Saved(
        requests=sum(int(part["requests"]) for part in found),
        cost_usd=sum(part["cost_usd"] for part in found),
        counterfactual_usd=sum(part["counterfactual_usd"] for part in found),
        unasked_usd=float(connection.execute(spent).scalar() or 0.0),
    )


def sums(connection: Connection, table: Table, unit: str, since_s: float, until_s: float) -> Mapping[str, float]:
    names = ("requests", "cost_usd", "counterfactual_usd")
    asked = select(*(func.sum(table.c[name]).label(name) for name in names))
    row = connection.execute(asked.where(table.c[unit] >= since_s, table.c[unit] < until_s)).mappings().one()
    return {name: float(row[name] or 0.0) for name in names}
