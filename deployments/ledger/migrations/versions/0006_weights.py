"""Weights that a tier has learned, and what each generation has learned, cost and saves: docs/distil.md."""

from alembic import op
from sqlalchemy import Column, String, Text

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("models", Column("tier", String(64), nullable=False, server_default=""))
    op.add_column("models", Column("numbers", Text, nullable=False, server_default="{}"))


def downgrade() -> None:
    op.drop_column("models", "numbers")
    op.drop_column("models", "tier")
