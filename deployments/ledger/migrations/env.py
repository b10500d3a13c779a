"""Run by alembic; the connection, and the transaction around it, are deployments/ledger/database.py's."""

from alembic import context

from deployments.ledger.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
