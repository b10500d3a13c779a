"""How far off the counterfactual is: where an audit had the top tier answer the same request, both figures are known."""

from typing import Any

from sqlalchemy import Connection, select

from deployments.costs.interval import Interval
from deployments.schema import calls, traces
from router import cost

LATEST = 5_000  # calls looked through; the rest of a large interval is not read

UNMEASURED = (
    "not measured: none of the latest calls of the interval is an audit, for which the top tier answers a request that a "
    "smaller one answered already (escalation.audit_rate)"
)
NONE: dict[str, Any] = {"requests": 0, "bias": None, "mean_off": None, "means": UNMEASURED}


def error(connection: Connection, interval: Interval, top: str) -> dict[str, Any]:
    """Over the latest calls of the interval.

    requests: how many tell. bias: of the sum, +0.1 means 10 % too high. mean_off: mean distance of one request's figure
    from the truth, as a share of the mean truth. Both are null where nothing tells.
    """
    latest = (
        select(calls.c.trace_id, calls.c.tier, calls.c.role, calls.c.estimated, calls.c.cost_usd)
        .where(calls.c.began_s >= interval.since, calls.c.began_s < interval.until)
        .order_by(calls.c.began_s.desc())
        .limit(LATEST)
        .subquery()
    )
    query = (
        select(traces.c.counterfactual_usd, latest.c.cost_usd)
        .select_from(latest.join(traces, traces.c.id == latest.c.trace_id))
        .where(latest.c.tier == top, latest.c.role == "audit", latest.c.estimated.is_(False))
        .where(traces.c.counterfactual_estimated.is_(True), traces.c.counterfactual_usd.is_not(None))
    )
    found = cost.error((row[0], row[1]) for row in connection.execute(query))
    if found.bias is None or found.mean_absolute is None:
        return NONE
    means = f"measured on {found.requests} audited requests, among the latest {LATEST} calls of the interval"
    off = {"bias": round(found.bias / 100, 6), "mean_off": round(found.mean_absolute / 100, 6)}
    return {"requests": found.requests, **off, "means": means}
