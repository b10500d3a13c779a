"""Metrics for Prometheus, and Grafana's boards made of them.

`metrics` counts what happened, `sampler` reports what changes without a request, `measures.yaml` and `panels.yaml` list every
metric and every panel. The room may import the ledger (for its sums) and the rooms below; it must not know the HTTP endpoint, the
tiers, keys or the cost page, which stand above it or beside it.
"""
