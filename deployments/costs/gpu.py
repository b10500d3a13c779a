"""The truth of the machines: accelerator time held, who used it, who bears what nobody used. The rules: router/accounting.py."""

import pyarrow as pa
from sqlalchemy import Connection

from deployments.costs import sums
from router.accounting import NOBODY, OVER, Held, Line, Used, split
from router.config import Config

SECONDS = ("busy_s", "idle_s", "nobody_s", "over_s")
USD = ("busy_usd", "idle_usd", "nobody_usd", "over_usd")
VALUES = [*SECONDS, *USD]
SCHEMA = pa.schema(
    [("at", pa.int64()), ("tier", pa.string()), ("key_id", pa.string()), *((name, pa.float64()) for name in VALUES)]
)


def read(config: Config, connection: Connection, since: int, until: int, step_s: int) -> pa.Table:
    """Accelerator-seconds and USD by bucket, tier and key, spread by the hour. over: what was measured beyond what was held,
    at most 0. What is nobody's has the key NOBODY or OVER."""
    accelerators = {tier.name: max(1, tier.accelerators) for tier in config.tiers}
    used = [
        Used(int(row.hour), row.tier, row.key_id, row.busy_s * accelerators.get(row.tier, 1), row.gpu_usd)
        for row in sums.busy(connection, since, until)
    ]
    held = [Held(int(row.at), row.tier, row.seconds, row.usd or 0.0) for row in sums.held(connection, since, until)]
    return sums.as_table([as_row(line, step_s) for line in split(used, held)], SCHEMA)


def as_row(line: Line, step_s: int) -> tuple[int | str | float, ...]:
    named = (line.at - line.at % step_s, line.tier, line.group)
    if line.group == NOBODY:
        return (*named, 0.0, 0.0, line.seconds, 0.0, 0.0, 0.0, line.usd, 0.0)
    if line.group == OVER:
        return (*named, 0.0, 0.0, 0.0, line.seconds, 0.0, 0.0, 0.0, line.usd)
    return (*named, line.busy_s, line.idle_s, 0.0, 0.0, line.busy_usd, line.idle_usd, 0.0, 0.0)


def is_somebody(key: str) -> bool:
    return key not in (NOBODY, OVER)
