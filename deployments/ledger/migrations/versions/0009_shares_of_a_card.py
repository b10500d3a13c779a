"""Replicas may hold a share of an accelerator: docs/rungs.md."""

from alembic import op
from sqlalchemy import Float, Integer

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    with op.batch_alter_table("windows") as windows:
        windows.alter_column("accelerators", existing_type=Integer(), type_=Float(53), existing_nullable=False)


def downgrade() -> None:
    with op.batch_alter_table("windows") as windows:
        windows.alter_column("accelerators", existing_type=Float(53), type_=Integer(), existing_nullable=False)
