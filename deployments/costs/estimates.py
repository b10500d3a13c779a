"""How far off the counterfactual is: where the top tier answered the same request after all, both figures are known."""

from typing import Any

from sqlalchemy import Connection, func, select

from deployments.costs.interval import Interval
from deployments.schema import calls, traces

LATEST = 5_000  # calls looked through; the rest of a large interval is not read

UNMEASURED = (
    "not measured: in this interval no request with an estimated counterfactual was also answered by the top tier; "
    "audits do that (escalation.audit_rate)"
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
    guess, truth = traces.c.counterfactual_usd, latest.c.cost_usd
    query = (
        select(func.count(), func.sum(guess), func.sum(truth), func.sum(func.abs(guess - truth)))
        .select_from(latest.join(traces, traces.c.id == latest.c.trace_id))
        .where(latest.c.tier == top, latest.c.role.in_(["audit", "final"]), latest.c.estimated.is_(False), truth > 0)
        .where(traces.c.counterfactual_estimated.is_(True), guess.is_not(None), traces.c.flow.in_(["direct", "cascade"]))
    )
    n, guessed, true, off = connection.execute(query).one()
    if not n:
        return NONE
    means = f"measured on {n} requests that the top tier also answered, among the latest {LATEST} calls of the interval"
    return {"requests": n, "bias": round(guessed / true - 1, 6), "mean_off": round(off / true, 6), "means": means}
