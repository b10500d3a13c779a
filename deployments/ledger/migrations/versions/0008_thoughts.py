"""How many of a call's tokens were thought before the answer, and when the answer began: docs/reasoning.md."""

from alembic import op
from sqlalchemy import BigInteger, Column, Float

revision = "0008"
down_revision = "0007"
TABLES = ("calls", "hourly", "daily")


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, Column("thought_tokens", BigInteger, nullable=False, server_default="0"))
    op.add_column("calls", Column("first_answer_s", Float(53)))


def downgrade() -> None:
    op.drop_column("calls", "first_answer_s")
    for table in TABLES:
        op.drop_column(table, "thought_tokens")
