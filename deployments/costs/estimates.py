"""How far off the counterfactual is: where an audit had the top tier answer the same request, both figures are known."""

from typing import Any

from sqlalchemy import Connection, Select, select

from deployments.costs.sums import Chosen
from deployments.ledger.schema import AUDITS, calls, traces
from router.costs import counterfactual

LATEST = 2_000  # audits looked at; earlier ones of a large interval are not read

UNMEASURED = (
    "not measured yet: none of the interval's requests was audited, that is answered by the top tier after a smaller one had "
    "answered it (escalation.audit_rate)"
)
NONE: dict[str, Any] = {"requests": 0, "bias": None, "mean_off": None, "mean_signed": None, "mean_absolute": None}


def error(connection: Connection, chosen: Chosen, top: str) -> dict[str, Any]:
    """Of the latest audits of what is chosen. tier: whose answer the client got.

    requests: how many tell. Each figure is null where nothing tells, and +0.1 means 10 % too high:
    mean_signed, mean_absolute: of one request, relative to what the top tier really cost for it, averaged over requests.
    bias, mean_off: the same, of the sums: a tiny request that is off tenfold costs nobody anything.
    """
    found = counterfactual.error((row[0], row[1]) for row in connection.execute(pairs(chosen, top)))
    if found.bias is None:
        return {**NONE, "means": UNMEASURED}
    names = {"bias": found.bias, "mean_off": found.mean_absolute}
    each = {"mean_signed": found.each_signed, "mean_absolute": found.each_absolute}
    off = {name: round(value / 100, 6) for name, value in (names | each).items() if value is not None}
    means = f"measured on {found.requests} audited requests, the latest of the interval, at most {LATEST:,}"
    return {**NONE, "requests": found.requests, **off, "means": means}


def pairs(chosen: Chosen, top: str) -> Select[Any]:
    """(estimate, what the top tier cost), of audits that were answered."""
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
