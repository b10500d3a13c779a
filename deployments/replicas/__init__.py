"""The model replicas of a tier that Ray Serve runs: what runs beside a model, and how Serve places, counts and chooses replicas.
vllm_tier.py is the one door to vLLM, imported only where a tier needs it; replica_choice.py runs in the ingress.
May import `lane`, the ground files and `router`. Must not know tiers, the ledger or the endpoint.
"""
