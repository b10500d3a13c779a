"""The truth of the machines: accelerator time held, who used it, who bears what nobody used."""

from typing import Any

import pyarrow as pa
from sqlalchemy import Connection

from deployments.costs import sums
from router.config import Config

SCHEMA = pa.schema(
    [
        ("at", pa.int64()), ("tier", pa.string()), ("key_id", pa.string()),
        ("busy_s", pa.float64()), ("idle_s", pa.float64()), ("nobody_s", pa.float64()),
        ("busy_usd", pa.float64()), ("idle_usd", pa.float64()), ("nobody_usd", pa.float64()),
    ]
)  # fmt: skip
VALUES = SCHEMA.names[3:]


def read(config: Config, connection: Connection, since: int, until: int, step_s: int) -> pa.Table:
    """Accelerator-seconds and USD by bucket, tier and key; nobody's time has the key ''."""
    accelerators = {tier.name: max(1, tier.accelerators) for tier in config.tiers}
    held = {(int(row.at), row.tier): (row.seconds, row.usd or 0.0) for row in sums.held(connection, since, until)}
    busy: dict[tuple[int, str], list[tuple[str, float, float]]] = {}
    for row in sums.busy(connection, since, until):
        if row.busy_s:
            seconds = row.busy_s * accelerators.get(row.tier, 1)
            busy.setdefault((int(row.hour), row.tier), []).append((row.key_id, seconds, row.gpu_usd))
    rows: list[tuple[Any, ...]] = []
    for (hour, tier), (seconds, usd) in sorted({**dict.fromkeys(busy, (0.0, 0.0)), **held}.items()):
        users = busy.get((hour, tier), [])
        used = sum(user[1] for user in users)
        idle = max(0.0, seconds - used)
        price = usd / seconds if seconds else 0.0
        at = hour - hour % step_s
        for key, mine, _ in users:
            bears = idle * mine / used
            rows.append((at, tier, key, mine, bears, 0.0, mine * price, bears * price, 0.0))
        if not users:
            rows.append((at, tier, "", 0.0, 0.0, idle, 0.0, 0.0, idle * price))
    return sums.as_table(rows, SCHEMA)
