"""Which tier's replicas answer for a tier that has none of its own: docs/adapters.md."""

from alembic import op
from sqlalchemy import Column, String

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table("shared_replicas", Column("tier", String(64), primary_key=True), Column("host", String(64), nullable=False))


def downgrade() -> None:
    op.drop_table("shared_replicas")
