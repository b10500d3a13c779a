"""What was served and may be kept, what is learned from it, and what is promoted: docs/learning.md."""

from alembic import op
from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, MetaData, String, Table, Text, text

revision = "0004"
down_revision = "0003"

metadata = MetaData()
COMPLETION = String(192)
ANSWERS = text("role = 'answer'")
LISTED = ("created_s", "id", "tier", "wanted", "role")

completions = Table(
    "completions",
    metadata,
    Column("id", COMPLETION, primary_key=True),
    Column("trace_id", String(64), nullable=False),
    Column("call_id", String(160), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("created_s", Float(53), nullable=False),
    Column("conversation", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("tier", String(64), nullable=False),
    Column("model", String(64), nullable=False),
    Column("wanted", String(128), nullable=False),
    Column("finish", String(32), nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost_usd", Float(53), nullable=False),
    Column("consent", String(16), nullable=False),
    Column("licence", String(64), nullable=False),
    Column("redaction", String(128), nullable=False),
    Column("expires_s", Float(53)),
    Column("messages", Text),
    Column("tools", Text),
    Column("sampling", Text),
    Column("answer", Text, nullable=False),
    Column("signals", Text),
    Column("metadata", Text, nullable=False),
    Index("completions_trace", "trace_id"),
    Index("completions_created", "created_s", "id"),
    Index("completions_expires", "expires_s"),
    Index("completions_answers", "key_id", *LISTED, sqlite_where=ANSWERS, postgresql_where=ANSWERS),
    Index("completions_answers_of_all", *LISTED, sqlite_where=ANSWERS, postgresql_where=ANSWERS),
)

completion_metadata = Table(
    "completion_metadata",
    metadata,
    Column("completion_id", COMPLETION, primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("value", String(512), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("created_s", Float(53), nullable=False),
    Index("completion_metadata_value", "key_id", "name", "value", "created_s", "completion_id"),
    Index("completion_metadata_of_all", "name", "value", "created_s", "completion_id"),
)

feedback = Table(
    "feedback",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("trace_id", String(64), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("score", Float(53)),
    Column("correction", Text),
    Column("comment", Text),
    Column("at_s", Float(53), nullable=False),
    Index("feedback_trace", "trace_id"),
    Index("feedback_at", "at_s"),
)

fills = Table(
    "fills",
    metadata,
    Column("trace_id", String(64), primary_key=True),
    Column("drawn_s", Float(53), nullable=False),
    Column("chance", Float(53), nullable=False),
    Column("state", String(16), nullable=False),
    Column("why", Text, nullable=False),
    Column("changed_s", Float(53), nullable=False),
    Index("fills_state", "state", "drawn_s"),
)

grades = Table(
    "grades",
    metadata,
    Column("trace_id", String(64), primary_key=True),
    Column("tier", String(64), primary_key=True),
    Column("score", Float(53)),
    Column("source", String(16), nullable=False),
    Column("detail", Text, nullable=False),
    Column("at_s", Float(53), nullable=False),
    Index("grades_at", "at_s"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("began_s", Float(53), nullable=False),
    Column("ended_s", Float(53)),
    Column("stage", String(16), nullable=False),
    Column("candidate", String(64), nullable=False),
    Column("incumbent", String(64), nullable=False),
    Column("started_by", String(128), nullable=False),
    Column("settings", Text, nullable=False),
    Index("runs_began", "began_s"),
)
run_events = Table(
    "run_events",
    metadata,
    Column("run_id", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at_s", Float(53), nullable=False),
    Column("stage", String(16), nullable=False),
    Column("what", String(64), nullable=False),
    Column("numbers", Text, nullable=False),
    Column("by", String(128), nullable=False),
)

run_pairs = Table(
    "run_pairs",
    metadata,
    Column("run_id", String(64), primary_key=True),
    Column("trace_id", String(64), primary_key=True),
    Column("number", Integer, nullable=False),
    Column("stage", String(16), nullable=False),
    Column("conversation", String(64), nullable=False),
    Column("d", Float(53)),
    Column("chance", Float(53), nullable=False),
    Column("candidate_usd", Float(53), nullable=False),
    Column("incumbent_usd", Float(53), nullable=False),
    Column("why", Text, nullable=False),
    Column("at_s", Float(53), nullable=False),
    Index("run_pairs_conversation", "run_id", "conversation"),
    Index("run_pairs_number", "run_id", "number"),
)
models = Table(
    "models",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("parent", String(64), nullable=False),
    Column("run_id", String(64), nullable=False),
    Column("method", String(64), nullable=False),
    Column("dataset", String(64), nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("licence", String(64), nullable=False),
    Column("made_s", Float(53), nullable=False),
    Column("files", Text, nullable=False),
)
model_files = Table(
    "model_files",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("content", LargeBinary, nullable=False),
)
model_rows = Table(
    "model_rows",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("trace_id", String(64), primary_key=True),
    Index("model_rows_trace", "trace_id"),
)

bundles = Table(
    "bundles",
    metadata,
    Column("slot", String(16), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("run_id", String(64), nullable=False),
    Column("share", Float(53), nullable=False),
    Column("since_s", Float(53), nullable=False),
    Column("over", String(64), nullable=False),
    Column("by", String(128), nullable=False),
)
leases = Table(
    "leases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("holder", String(128), nullable=False),
    Column("until_s", Float(53), nullable=False),
)


def upgrade() -> None:
    metadata.create_all(op.get_bind())
    op.add_column("traces", Column("router", String(64)))
    op.add_column("calls", Column("model", String(64)))
    learned = text("key_id = 'learning'")
    op.create_index("calls_learned", "calls", ["began_s"], sqlite_where=learned, postgresql_where=learned)
    op.add_column("keys", Column("learning", String(16), nullable=False, server_default="never"))


def downgrade() -> None:
    op.drop_index("calls_learned", "calls")
    for table, column in (("keys", "learning"), ("calls", "model"), ("traces", "router")):
        op.drop_column(table, column)
    metadata.drop_all(op.get_bind())
