"""What the ledger holds in all, by tier: sums over its hourly sums, which stay when single rows are deleted."""

from typing import Any

from sqlalchemy import Connection, case, func, select

from deployments.metrics import Total
from deployments.schema import hourly, hourly_traces


def read(connection: Connection) -> list[Total]:
    """One total a tier; the tier `` has the requests that nobody answered."""
    found: dict[str, dict[str, Any]] = {}
    for query in (CALLS, REQUESTS):
        for row in connection.execute(query).mappings():
            found.setdefault(row["tier"], {}).update(row)
    return [Total(**figures) for _, figures in sorted(found.items())]


def summed(table: Any, *names: str) -> list[Any]:
    return [func.sum(table.c[name]).label(name) for name in names]


AUDITS = func.sum(case((hourly.c.role == "audit", hourly.c.cost_usd), else_=0.0)).label("audit_usd")
COUNTS = summed(hourly, "calls", "input_tokens", "output_tokens", "cached_tokens", "cost_usd")
CALLS = select(hourly.c.tier, *COUNTS, AUDITS).group_by(hourly.c.tier)
COMPARED = func.sum(hourly_traces.c.cost_usd).label("compared_usd")
REQUESTS = select(hourly_traces.c.tier, *summed(hourly_traces, "requests", "counterfactual_usd"), COMPARED).group_by(
    hourly_traces.c.tier
)
