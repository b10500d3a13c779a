"""Lanes where Ray Serve runs the replicas: which replicas there are, what Serve counts, and both ends put together.
May import `lane`, the files of `replicas` beside it and `router`. Must not know tiers, vLLM or the endpoint. Only this room knows
the private parts of Ray that lanes need.
"""
