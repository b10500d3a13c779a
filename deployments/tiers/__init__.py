"""The tiers as the ingress sees them, a file for each engine behind the protocol of tier.py; tier_answer.py, which checks what
any of them says; and what a tier's files tell before it is asked: token counts, fingerprints, mistakes. `deployments.app.TIERS`
joins an engine with its replicas.
May import `ledger`, `replicas` and the rooms below. Must not know the endpoint, keys, costs or vLLM.
"""
