"""Answers of the Responses protocol that a later request may continue: docs/clients.md."""

from alembic import op
from sqlalchemy import Column, Float, Index, LargeBinary, String

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "response_states",
        Column("id", String(64), primary_key=True),
        Column("key_id", String(64), primary_key=True),
        Column("kept", LargeBinary, nullable=False),
        Column("expires_s", Float(53), nullable=False),
        Index("response_states_expires", "expires_s"),
    )


def downgrade() -> None:
    op.drop_table("response_states")
