"""How many of a call's tokens were thought before the answer, when the answer began, and what a key's clients
get of thoughts: docs/reasoning.md.
"""

from alembic import op
from sqlalchemy import BigInteger, Column, Float, String

revision = "0008"
down_revision = "0007"
TABLES = ("calls", "hourly", "daily")


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, Column("thought_tokens", BigInteger, nullable=False, server_default="0"))
    op.add_column("calls", Column("first_answer_s", Float(53)))
    op.add_column("keys", Column("reasoning", String(8)))


def downgrade() -> None:
    op.drop_column("keys", "reasoning")
    op.drop_column("calls", "first_answer_s")
    for table in TABLES:
        op.drop_column(table, "thought_tokens")
