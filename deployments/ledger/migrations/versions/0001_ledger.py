"""The ledger, as it began. Frozen: what changes later is a revision of its own."""

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, String, Text

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "traces",
        Column("id", String(64), primary_key=True),
        Column("key_id", String(64), nullable=False),
        Column("began_s", Float(53), nullable=False),
        Column("took_s", Float(53), nullable=False),
        Column("path", String(32), nullable=False),
        Column("wanted", String(128), nullable=False),
        Column("status", Integer, nullable=False),
        Column("tier", String(64), nullable=False),
        Column("target", String(64), nullable=False),
        Column("reason", String(64), nullable=False),
        Column("flow", String(32), nullable=False),
        Column("error", String(64), nullable=False),
        Column("stream", Boolean, nullable=False),
        Column("confidence", Float(53)),
        Column("unfamiliar", Float(53)),
        Column("p", Text, nullable=False),
        Column("certificate", String(32), nullable=False),
        Column("decision_ms", Float(53), nullable=False),
        Column("first_byte_s", Float(53)),
        Column("cost_usd", Float(53), nullable=False),
        Column("counterfactual_usd", Float(53)),
        Column("counterfactual_estimated", Boolean, nullable=False),
        Column("prompt", Text),
        Column("answer", Text),
    )
    op.create_index("traces_began", "traces", ["began_s"])
    op.create_index("traces_key_began", "traces", ["key_id", "began_s"])
    op.create_table(
        "calls",
        Column("id", String(160), primary_key=True),
        Column("trace_id", String(64), nullable=False),
        Column("key_id", String(64), nullable=False),
        Column("role", String(16), nullable=False),
        Column("tier", String(64), nullable=False),
        Column("outcome", String(64), nullable=False),
        Column("began_s", Float(53), nullable=False),
        Column("took_s", Float(53), nullable=False),
        Column("input_tokens", BigInteger, nullable=False),
        Column("output_tokens", BigInteger, nullable=False),
        Column("cached_tokens", BigInteger, nullable=False),
        Column("estimated", Boolean, nullable=False),
        Column("first_token_s", Float(53)),
        Column("cost_usd", Float(53), nullable=False),
        Column("replica", String(128), nullable=False),
        Column("busy_s", Float(53)),
        Column("gpu_usd", Float(53)),
    )
    op.create_index("calls_trace", "calls", ["trace_id"])
    op.create_index("calls_began", "calls", ["began_s"])
    op.create_table(
        "hourly",
        Column("hour", BigInteger, primary_key=True),
        Column("key_id", String(64), primary_key=True),
        Column("tier", String(64), primary_key=True),
        Column("role", String(16), primary_key=True),
        Column("calls", BigInteger, nullable=False),
        Column("input_tokens", BigInteger, nullable=False),
        Column("output_tokens", BigInteger, nullable=False),
        Column("cached_tokens", BigInteger, nullable=False),
        Column("cost_usd", Float(53), nullable=False),
        Column("busy_s", Float(53), nullable=False),
        Column("gpu_usd", Float(53), nullable=False),
    )
    op.create_table(
        "hourly_traces",
        Column("hour", BigInteger, primary_key=True),
        Column("key_id", String(64), primary_key=True),
        Column("tier", String(64), primary_key=True),
        Column("target", String(64), primary_key=True),
        Column("reason", String(64), primary_key=True),
        Column("flow", String(32), primary_key=True),
        Column("requests", BigInteger, nullable=False),
        Column("failed", BigInteger, nullable=False),
        Column("cost_usd", Float(53), nullable=False),
        Column("counterfactual_usd", Float(53), nullable=False),
        Column("cost_all_usd", Float(53), nullable=False),
        Column("confidence", Float(53), nullable=False),
        Column("confident", BigInteger, nullable=False),
    )
    op.create_table(
        "windows",
        Column("tier", String(64), primary_key=True),
        Column("began_s", BigInteger, primary_key=True),
        Column("seconds", Float(53), nullable=False),
        Column("replicas", Float(53), nullable=False),
        Column("accelerators", Integer, nullable=False),
        Column("usd_per_accelerator_hour", Float(53)),
    )
    op.create_index("windows_began", "windows", ["began_s"])
    op.create_table(
        "keys",
        Column("id", String(64), primary_key=True),
        Column("name", String(128), nullable=False),
        Column("hash", String(64), nullable=False, unique=True),
        Column("created_s", Float(53), nullable=False),
        Column("revoked_s", Float(53)),
        Column("tiers", Text),
        Column("targets", Text),
        Column("requests_per_minute", Integer),
        Column("tokens_per_minute", Integer),
        Column("usd_per_day", Float(53)),
        Column("usd_per_month", Float(53)),
        Column("rights", Text, nullable=False),
    )
    op.create_table(
        "budgets",
        Column("key_id", String(64), primary_key=True),
        Column("period", String(10), primary_key=True),
        Column("spent_usd", Float(53), nullable=False),
        Column("reserved_usd", Float(53), nullable=False),
    )
    op.create_table(
        "reservations",
        Column("id", String(64), primary_key=True),
        Column("key_id", String(64), nullable=False),
        Column("usd", Float(53), nullable=False),
        Column("expires_s", Float(53), nullable=False),
        Column("periods", Text, nullable=False),
    )
    op.create_index("reservations_expires", "reservations", ["expires_s"])


def downgrade() -> None:
    for table in ("traces", "calls", "hourly", "hourly_traces", "windows", "keys", "budgets", "reservations"):
        op.drop_table(table)
