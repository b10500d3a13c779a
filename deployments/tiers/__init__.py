"""The tiers as the ingress sees them: one file for each kind of engine, all behind the protocol of tier.py.

Here also: what a tier's own files tell without asking it, its tokens (token_counters.py) and its fingerprint (fingerprints.py).
May import `ledger`, `replicas` and the rooms below them. Must not know HTTP endpoints, keys, costs or vLLM: the registry
`deployments.app.TIERS` joins an engine here with the replicas that it needs.
"""
