"""The report that /costs.json, the cost page and `stepdown costs` show."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine

from deployments.costs import curve, estimates, gpu, sums
from deployments.costs.figures import NANO, Figures, share
from deployments.costs.interval import interval, utc_text
from deployments.costs.sums import Chosen
from deployments.ledger import sum_tables
from router.config import Config
from router.errors import BadRequest
from router.limits.key_limits import day_of, month_of

BY = ("tier", "key", "day")
PLACES = {"day": 0, "tier": 1}  # in the keys of `Report.parts`
Rows = Sequence[Mapping[str, Any]]
NOTE = "Routing saves money only when large replicas scale down or serve someone else."
MEANS = {
    "requests": "by the tier that answered and the hour they came; calls and tokens by the tier that was called",
    "cost_usd": "tokens times list price, of every call: also rejected, cancelled and failed ones, audits, calls to learn from",
    "counterfactual_usd": "what the top tier alone would have cost by list price, for the requests where this is known; "
    "covered_usd was paid for the same requests",
    "saving_usd": "counterfactual_usd - covered_usd - audit_usd - learning_usd. " + NOTE,
    "escalations": "answers of smaller tiers that were looked at and rejected",
    "gpu": "accelerator-seconds, and USD by the price of an hour. Busy: measured by the replicas, shared among the requests that "
    "ran together. Idle: held but not used, borne by those who used the tier in that hour. Nobody: hours in which no one used "
    "the tier. Over: measured beyond what was held, and taken back. The four add up to what was held",
    "quality": "relative to the top tier: its own answers count 1, others the chance they were given before they were seen",
    "interval": "whole hours, UTC; the interval asked for is rounded outward",
}


def report(
    engine: Engine,
    config: Config,
    since: float,
    until: float,
    key: str | None = None,
    tier: str | None = None,
    by: Sequence[str] = BY,
) -> dict[str, Any]:
    """The report of an interval, which is rounded outward to whole hours (UTC). docs/costs.md explains each figure.

    key: an id. tier: only requests that it answered and calls to it. by: the tables wanted. Raises BadRequest.
    """
    unknown = [name for name in by if name not in BY]
    if unknown:
        raise BadRequest(f"`by` is {unknown[0][:40]!r}; use {', '.join(BY)}", "by")
    with engine.connect() as connection:
        return Report(connection, config, Chosen(interval(since, until), key, tier)).as_json(by)


class Report:
    """Reads the figures of one part of the traffic and makes the report of them."""

    def __init__(self, connection: Connection, config: Config, chosen: Chosen) -> None:
        self.connection, self.config, self.chosen = connection, config, chosen
        self.names, self.spans = sums.key_names(connection), sums.spans(connection, chosen.interval)
        self.machines = gpu.read_machine_time(connection, chosen, self.spans)
        self.decided = self.requests("tier", "target", "reason", "flow")
        self.parts = self.added(
            ("at", "tier"), self.calls("at", "tier", "role"), self.requests("at", "tier", "flow"), self.machines.by_time
        )
        self.whole = merged(self.parts, ()).get((), Figures())

    def calls(self, *groups: str) -> list[dict[str, Any]]:
        return sums.read_sums(self.connection, sum_tables.CALLS, sum_tables.CALLS_BY_DAY, self.spans, self.chosen, groups)

    def requests(self, *groups: str) -> list[dict[str, Any]]:
        """Read from the smallest table that has these groups."""
        by_day = sum_tables.KEYS_BY_DAY if "key_id" in groups else sum_tables.TRACES_BY_DAY
        if self.chosen.key is None and "key_id" not in groups:
            by_day = sum_tables.TOTALS_BY_DAY
        return sums.read_sums(self.connection, sum_tables.TRACES, by_day, self.spans, self.chosen, groups)

    def added(self, names: Sequence[str], calls: Rows, requests: Rows, machines: Rows) -> dict[tuple[Any, ...], Figures]:
        """Figures by the values of the columns `names`."""
        found: dict[tuple[Any, ...], Figures] = {}

        def figures(row: Mapping[str, Any]) -> Figures:
            return found.setdefault(tuple(row[name] for name in names), Figures())

        for row in calls:
            figures(row).add_calls(row)
        for row in requests:
            figures(row).add_requests(row, self.config.names[-1])
        for row in machines:
            figures(row).add_machine_time(row)
        return found

    def by_key(self) -> dict[tuple[Any, ...], Figures]:
        calls, requests = self.calls("key_id", "role"), self.requests("key_id", "tier", "flow")
        return self.added(("key_id",), calls, requests, self.machines.by_key)

    def as_json(self, by: Sequence[str]) -> dict[str, Any]:
        return {
            **heading(self.chosen),
            "totals": self.whole.as_json(),
            "gpu": self.machine(),
            "covers": self.covers(),
            "by": {name: self.table(name) for name in by},
            "reasons": self.reasons(),
            "curve": {**curve.promised(self.config), "live": self.live()},
            "tiers": list(self.config.names),
            "services": self.config.service_names,
            "keys": [{"id": r.id, "name": r.name, "revoked": r.revoked_s is not None} for r in self.names.values()],
            "budgets": self.budgets(),
            "means": MEANS,
            "note": NOTE,
        }

    def machine(self) -> dict[str, Any]:
        """What the chosen tiers held; with a key chosen, what the key used and bears."""
        return {**self.whole.machine(), "busy_share": share(self.whole.busy_s + self.whole.over_s, self.whole.held_s)}

    def covers(self) -> dict[str, Any]:
        """How much of the cost has a known counterfactual, and how far off that is."""
        error = estimates.counterfactual_error(self.connection, self.chosen, self.config.names[-1])
        return {"of_cost": share(self.whole.covered_usd, self.whole.requests_usd), "error": error}

    def table(self, name: str) -> list[dict[str, Any]]:
        """Rows with their share of the whole's cost, tokens, busy time and requests."""
        found = self.by_key() if name == "key" else merged(self.parts, (PLACES[name],))
        rows = [{name: value, **part.as_json(), "shares": shares(part, self.whole)} for (value,), part in found.items()]
        if name == "tier":
            return sorted(rows, key=lambda row: in_order(self.config.served_names, row["tier"]))
        if name == "key":
            rows = [{**row, "name": self.names[row["key"]].name if row["key"] in self.names else ""} for row in rows]
            return sorted(rows, key=lambda row: (-row["cost_usd"], row["key"]))
        for row in rows:
            row["tiers"] = {tier: part.brief() for (at, tier), part in self.parts.items() if at == row["day"]}
        return sorted(rows, key=lambda row: int(row["day"]))

    def reasons(self) -> list[dict[str, Any]]:
        """Requests by answering tier, reason and flow, the most frequent first."""
        rows = sums.grouped(self.decided, ["tier", "reason", "flow"], ["requests", "failed"])
        return sorted(rows, key=lambda row: -row["requests"])

    def live(self) -> list[dict[str, Any]]:
        rows = sums.grouped(self.decided, ["target", "tier", "reason"], sum_tables.TRACES.values)
        return curve.live(rows, self.config.names[-1])

    def budgets(self) -> list[dict[str, Any]]:
        """Each key's budgets with what is spent and reserved now, whatever the interval."""
        periods = {"usd_per_day": day_of(time.time()).name, "usd_per_month": month_of(time.time()).name}
        used = sums.spent(self.connection, list(periods.values()))
        chosen = [row for row in self.names.values() if row.revoked_s is None and self.chosen.key in (None, row.id)]
        return [
            budget(row, period, limit, used.get((row.id, period)))
            for row in chosen
            for column, period in periods.items()
            if (limit := getattr(row, column)) is not None
        ]


def merged(parts: Mapping[tuple[Any, ...], Figures], places: Sequence[int]) -> dict[tuple[Any, ...], Figures]:
    """Added up by the values at these places of their keys. Sorted by key, so that the sums are always the same."""
    found: dict[tuple[Any, ...], Figures] = {}
    for key, figures in sorted(parts.items()):
        found.setdefault(tuple(key[place] for place in places), Figures()).add(figures)
    return found


def budget(key: Any, period: str, limit: float, used: Any) -> dict[str, Any]:
    spent, reserved = (used.spent_usd, used.reserved_usd) if used else (0.0, 0.0)
    money = {"limit_usd": limit, "spent_usd": round(spent, NANO), "reserved_usd": round(reserved, NANO)}
    return {"key": key.id, "name": key.name, "period": period, **money}


def heading(chosen: Chosen) -> dict[str, Any]:
    when = chosen.interval
    return {
        "since": when.since,
        "until": when.until,
        "since_utc": utc_text(when.since),
        "until_utc": utc_text(when.until),
        "asked": {"since": when.asked[0], "until": when.asked[1]},
        "rounded": when.rounded,
        "step_s": when.step_s,
        "key": chosen.key,
        "tier": chosen.tier,
        "currency": "USD",
    }


def shares(part: Figures, whole: Figures) -> dict[str, float | None]:
    return {
        "cost": share(part.cost_usd, whole.cost_usd),
        "tokens": share(part.tokens, whole.tokens),
        "gpu": share(part.busy_s, whole.busy_s),
        "requests": share(part.requests, whole.requests),
    }


def in_order(names: Sequence[str], tier: str) -> tuple[int, str]:
    """Tiers as on the ladder, services, then former ones, then requests that nobody answered. names: of both."""
    return (names.index(tier) if tier in names else len(names) + (tier == ""), tier)
