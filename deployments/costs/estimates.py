"""How far off the counterfactual is, measured where an audit had the top tier answer the same request."""

from typing import Any

from sqlalchemy import Connection, Select, select

from deployments.costs.sums import Chosen
from deployments.ledger.schema import AUDITS, calls, traces
from router.costs import counterfactual

LATEST = 2_000  # audits that are read; earlier ones of a large interval are not
UNMEASURED = (
    "not measured yet: none of the interval's requests was audited, that is answered by the top tier after a smaller one had "
    "answered it (escalation.audit_rate)"
)


def counterfactual_error(connection: Connection, chosen: Chosen, top: str) -> dict[str, Any]:
    """The error over the latest audits. A tier is chosen by whose answer the client got.

    requests: the number measured. +0.1 means 10 % too high; null: not measured. mean_signed, mean_absolute: of one request,
    relative to the top tier's real cost for it, averaged over requests. bias, mean_off: the same, of the sums, in which a tiny
    request that is off tenfold hardly counts.
    """
    found = counterfactual.error((row[0], row[1]) for row in connection.execute(pairs(chosen, top)))
    percents = {
        "bias": found.bias,
        "mean_off": found.mean_absolute,
        "mean_signed": found.each_signed,
        "mean_absolute": found.each_absolute,
    }
    shares = {name: None if value is None else round(value / 100, 6) for name, value in percents.items()}
    if found.bias is None:
        return {"requests": 0, **shares, "means": UNMEASURED}
    means = f"measured on {found.requests} audited requests, the latest of the interval, at most {LATEST:,}"
    return {"requests": found.requests, **shares, "means": means}


def pairs(chosen: Chosen, top: str) -> Select[Any]:
    """(estimate, the top tier's real cost) for audits that were answered."""
    when = chosen.interval
    latest = (
        select(calls.c.trace_id, calls.c.cost_usd)
        .where(AUDITS, calls.c.began_s >= when.since, calls.c.began_s < when.until)
        .where(calls.c.tier == top, calls.c.estimated.is_(False), calls.c.output_tokens > 0)
        .order_by(calls.c.began_s.desc())
        .limit(LATEST)
        .subquery()
    )
    query = (
        select(traces.c.counterfactual_usd, latest.c.cost_usd)
        .select_from(latest.join(traces, traces.c.id == latest.c.trace_id))
        .where(traces.c.counterfactual_estimated.is_(True), traces.c.counterfactual_usd.is_not(None))
    )
    return chosen.only(query, traces.c)
