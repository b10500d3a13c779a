"""How an answer is written for a client: in the protocol of its path, and kept so that a later request can continue it.

It imports the pure protocols of `router.protocols`. It must not know how an answer comes about: tiers, flows, calls.
"""
