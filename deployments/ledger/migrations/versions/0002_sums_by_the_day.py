"""Sums by the day and of what was held, from the sums by the hour and the windows, which reach back further than the rows."""

from alembic import op
from sqlalchemy import BigInteger, Column, Float, String, text

revision = "0002"
down_revision = "0001"

CALLS = ("calls", "input_tokens", "output_tokens", "cached_tokens", "cost_usd", "busy_s", "gpu_usd")
TRACES = ("requests", "failed", "cost_usd", "counterfactual_usd", "cost_all_usd", "confidence", "confident")
HELD = ("replica_s", "accelerator_s", "usd")
MACHINES = ("busy_s", "idle_s", "nobody_s", "over_s", "busy_usd", "idle_usd", "nobody_usd", "over_usd")
WHOLE = {"calls", "input_tokens", "output_tokens", "cached_tokens", "requests", "failed", "confident"}
DECIDED = ("tier", "target", "reason", "flow")
TABLES = {  # groups, sums, and where the sums come from
    "daily": (("day", "key_id", "tier", "role"), CALLS, "hourly"),
    "daily_traces": (("key_id", "day", *DECIDED), TRACES, "hourly_traces"),
    "daily_totals": (("day", *DECIDED), TRACES, "daily_traces"),
    "daily_keys": (("day", "key_id", "tier", "flow"), TRACES, "daily_traces"),
}


def upgrade() -> None:
    for table, (groups, sums, source) in TABLES.items():
        make(table, groups, sums)
        picked = ", ".join("hour - hour % 86400" if name == "day" and source.startswith("hourly") else name for name in groups)
        added = ", ".join(f"CAST(sum({name}) AS BIGINT)" if name in WHOLE else f"sum({name})" for name in sums)
        numbers = ", ".join(str(n + 1) for n in range(len(groups)))
        op.execute(f"INSERT INTO {table} SELECT {picked}, {added} FROM {source} GROUP BY {numbers}")
    make("hourly_held", ("hour", "tier"), HELD)
    held, accelerators = "seconds * replicas", "seconds * replicas * accelerators"
    op.execute(
        f"INSERT INTO hourly_held SELECT began_s - began_s % 3600, tier, sum({held}), sum({accelerators}), "
        f"coalesce(sum({accelerators} * usd_per_accelerator_hour / 3600.0), 0.0) FROM windows GROUP BY 1, 2"
    )
    make("closed_days", ("day",), ())
    make("daily_machines", ("day", "tier", "key_id"), MACHINES)
    audits = text("role = 'audit'")
    op.create_index("calls_audits", "calls", ["began_s"], sqlite_where=audits, postgresql_where=audits)


def make(table: str, groups: tuple[str, ...], sums: tuple[str, ...]) -> None:
    lengths = {"role": 16, "flow": 32}
    op.create_table(
        table,
        *(
            Column(
                name,
                BigInteger() if name in ("hour", "day") else String(lengths.get(name, 64)),
                primary_key=True,
                autoincrement=False,
            )
            for name in groups
        ),
        *(Column(name, BigInteger() if name in WHOLE else Float(53), nullable=False) for name in sums),
    )


def downgrade() -> None:
    op.drop_index("calls_audits", "calls")
    for table in (*TABLES, "hourly_held", "closed_days", "daily_machines"):
        op.drop_table(table)
