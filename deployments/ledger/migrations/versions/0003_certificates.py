"""What audits have found of certificates, so that it is known to all ingresses and after a restart."""

from alembic import op
from sqlalchemy import BigInteger, Column, Float, String, Text

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "certificates",
        Column("digest", String(64), primary_key=True),
        Column("rule", String(128), nullable=False),
        Column("audits", BigInteger, nullable=False),
        Column("errors", BigInteger, nullable=False),
        Column("retired", Text, nullable=False),
        Column("changed_s", Float(53), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("certificates")
