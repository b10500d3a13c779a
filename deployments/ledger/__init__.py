"""The ledger: every request, its calls, accelerator time and budgets, durably in SQLite or PostgreSQL.

The road of a row, which docs/ledger.md draws: `ledger` takes a trace, `kept_texts` drops or redacts its texts, `rows` makes rows
of it, `store` decides where they go: through `spool` (files that `drainer` or `store` empties) or at once to `writes`, which
uses `statements`, `sum_tables` and `budgets`. `schema` and `database` are the ground; the rest is upkeep. The room may import the
router and deployments.daemon; it must not know HTTP, tiers, replicas, or the rooms that read it (costs, monitoring, keys).
"""
