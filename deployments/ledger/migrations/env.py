"""Run by alembic, on the connection and in the transaction of deployments/ledger/database.py."""

from alembic import context

from deployments.ledger.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
