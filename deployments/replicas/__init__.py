"""The model replicas of a tier that Ray Serve runs: what runs beside a model, and how Serve places, counts and chooses replicas.

vllm_tier.py is the one door to vLLM and is imported only where a tier needs it; meter.py measures each call; replica_choice.py
runs in the ingress, where Serve chooses a replica. May import `lane` and the other rooms of the ground, and `router`.
Must not know tiers, the ledger or HTTP endpoints.
"""
