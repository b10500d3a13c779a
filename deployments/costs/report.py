"""The one source of figures: /costs.json, the page and `stepdown costs` show what `report` returns."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine

from deployments.costs import curve, estimates, gpu, sums
from deployments.costs.figures import NANO, Figures, share
from deployments.costs.interval import interval, shown
from deployments.costs.sums import Chosen
from deployments.ledger import sum_tables
from router.config import Config
from router.errors import BadRequest

BY = ("tier", "key", "day")
PLACES = {"day": 0, "tier": 1}  # in a key of `Books.parts`
Rows = Sequence[Mapping[str, Any]]
NOTE = "Routing saves money only when large replicas scale down or serve someone else."
MEANS = {
    "requests": "by the tier that answered and the hour they came; calls and tokens by the tier that was called",
    "cost_usd": "tokens times list price, of every call: rejected, cancelled, failed and audits too",
    "counterfactual_usd": "what the top tier alone would have cost by list price, of the requests where that can be told; "
    "covered_usd is what was paid for the same requests",
    "saving_usd": "counterfactual_usd - covered_usd - audit_usd. " + NOTE,
    "escalations": "answers of smaller tiers that were looked at and not taken",
    "gpu": "accelerator-seconds, and by the hour's price USD. Busy: measured by the replicas, shared among the requests that "
    "ran together. Idle: held and not used, borne by who used the tier in that hour. Nobody: of hours in which no one did. "
    "Over: measured beyond what was held, taken back. All four are what was held",
    "quality": "relative to the top tier: its own answers count 1, others the chance they were given before they were seen",
    "interval": "whole hours, UTC: the interval asked for is rounded outward",
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
    """Everything of an interval, rounded outward to whole hours (UTC). docs/costs.md explains each figure.

    key: its id. tier: requests that it answered, calls that went to it. by: the tables wanted. Raises BadRequest.
    """
    unknown = [name for name in by if name not in BY]
    if unknown:
        raise BadRequest(f"`by` is {unknown[0][:40]!r}; use {', '.join(BY)}", "by")
    with engine.connect() as connection:
        return Books(connection, config, Chosen(interval(since, until), key, tier)).told(by)


class Books:
    """Everything of one part of the traffic."""

    def __init__(self, connection: Connection, config: Config, chosen: Chosen) -> None:
        self.connection, self.config, self.chosen = connection, config, chosen
        self.names, self.spans = sums.key_names(connection), sums.spans(connection, chosen.interval)
        self.machines = gpu.read(connection, chosen, self.spans)
        self.decided = self.requests("tier", "target", "reason", "flow")
        self.parts = self.added(
            ("at", "tier"), self.calls("at", "tier", "role"), self.requests("at", "tier", "flow"), self.machines.by_time
        )
        self.whole = merged(self.parts, ()).get((), Figures())

    def calls(self, *groups: str) -> list[dict[str, Any]]:
        return sums.read(self.connection, sum_tables.CALLS, sum_tables.CALLS_BY_DAY, self.spans, self.chosen, groups)

    def requests(self, *groups: str) -> list[dict[str, Any]]:
        """From the smallest table that has these groups of what is chosen."""
        by_day = sum_tables.KEYS_BY_DAY if "key_id" in groups else sum_tables.TRACES_BY_DAY
        if self.chosen.key is None and "key_id" not in groups:
            by_day = sum_tables.TOTALS_BY_DAY
        return sums.read(self.connection, sum_tables.TRACES, by_day, self.spans, self.chosen, groups)

    def added(self, names: Sequence[str], calls: Rows, requests: Rows, machines: Rows) -> dict[tuple[Any, ...], Figures]:
        """Figures by the values of these columns."""
        found: dict[tuple[Any, ...], Figures] = {}

        def of(row: Mapping[str, Any]) -> Figures:
            return found.setdefault(tuple(row[name] for name in names), Figures())

        for row in calls:
            of(row).called(row)
        for row in requests:
            of(row).asked(row, self.config.names[-1])
        for row in machines:
            of(row).used(row)
        return found

    def by_key(self) -> dict[tuple[Any, ...], Figures]:
        calls, requests = self.calls("key_id", "role"), self.requests("key_id", "tier", "flow")
        return self.added(("key_id",), calls, requests, self.machines.by_key)

    def told(self, by: Sequence[str]) -> dict[str, Any]:
        return {
            **asked(self.chosen),
            "totals": self.whole.told(),
            "gpu": self.machine(),
            "covers": self.covers(),
            "by": {name: self.table(name) for name in by},
            "reasons": self.reasons(),
            "curve": {**curve.promised(self.config), "live": self.live()},
            "tiers": list(self.config.names),
            "keys": [{"id": r.id, "name": r.name, "revoked": r.revoked_s is not None} for r in self.names.values()],
            "budgets": self.budgets(),
            "means": MEANS,
            "note": NOTE,
        }

    def machine(self) -> dict[str, Any]:
        """What was held by the chosen tiers; with a key chosen, what it used and bears."""
        of = self.whole.machine()
        return {**of, "busy_share": share(self.whole.busy_s + self.whole.over_s, self.whole.held_s)}

    def covers(self) -> dict[str, Any]:
        """How much of what was paid has a counterfactual, and how far off that is."""
        error = estimates.error(self.connection, self.chosen, self.config.names[-1])
        return {"of_cost": share(self.whole.covered_usd, self.whole.requests_usd), "error": error}

    def table(self, name: str) -> list[dict[str, Any]]:
        """Rows with their share of the whole's cost, tokens, busy time and requests."""
        found = self.by_key() if name == "key" else merged(self.parts, (PLACES[name],))
        rows = [{name: value, **of.told(), "shares": shares(of, self.whole)} for (value,), of in found.items()]
        if name == "tier":
            return sorted(rows, key=lambda row: in_order(self.config.names, row["tier"]))
        if name == "key":
            rows = [{**row, "name": self.names[row["key"]].name if row["key"] in self.names else ""} for row in rows]
            return sorted(rows, key=lambda row: (-row["cost_usd"], row["key"]))
        for row in rows:
            row["tiers"] = {tier: of.brief() for (at, tier), of in self.parts.items() if at == row["day"]}
        return sorted(rows, key=lambda row: int(row["day"]))

    def reasons(self) -> list[dict[str, Any]]:
        """Requests by tier that answered, reason and flow, the most frequent first."""
        rows = sums.grouped(self.decided, ["tier", "reason", "flow"], ["requests", "failed"])
        return sorted(rows, key=lambda row: -row["requests"])

    def live(self) -> list[dict[str, Any]]:
        rows = sums.grouped(self.decided, ["target", "tier", "reason"], sum_tables.TRACES.values)
        return curve.live(rows, self.config.names[-1])

    def budgets(self) -> list[dict[str, Any]]:
        """Each limit with what is spent and reserved of it now, whatever the interval."""
        now = datetime.now(UTC)
        periods = {"usd_per_day": f"{now:%Y-%m-%d}", "usd_per_month": f"{now:%Y-%m}"}
        used = sums.spent(self.connection, list(periods.values()))
        chosen = [row for row in self.names.values() if row.revoked_s is None and self.chosen.key in (None, row.id)]
        return [
            budget(row, period, limit, used.get((row.id, period)))
            for row in chosen
            for column, period in periods.items()
            if (limit := getattr(row, column)) is not None
        ]


def merged(parts: Mapping[tuple[Any, ...], Figures], places: Sequence[int]) -> dict[tuple[Any, ...], Figures]:
    """Added up by the values at these places of their key; in the order of the keys, so always the same sum."""
    found: dict[tuple[Any, ...], Figures] = {}
    for key, figures in sorted(parts.items()):
        found.setdefault(tuple(key[place] for place in places), Figures()).add(figures)
    return found


def budget(key: Any, period: str, limit: float, used: Any) -> dict[str, Any]:
    spent, reserved = (used.spent_usd, used.reserved_usd) if used else (0.0, 0.0)
    money = {"limit_usd": limit, "spent_usd": round(spent, NANO), "reserved_usd": round(reserved, NANO)}
    return {"key": key.id, "name": key.name, "period": period, **money}


def asked(chosen: Chosen) -> dict[str, Any]:
    when = chosen.interval
    return {
        "since": when.since,
        "until": when.until,
        "since_utc": shown(when.since),
        "until_utc": shown(when.until),
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
    """As on the ladder, then tiers that are there no more, then requests nobody answered."""
    return (names.index(tier) if tier in names else len(names) + (tier == ""), tier)
