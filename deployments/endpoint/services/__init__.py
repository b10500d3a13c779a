"""The endpoints of the services beside the ladder: embeddings, rerank and score. One request is one call, with a ledger row.

May import the endpoint's accounts and what `deployments.services` offers. Must not know tiers' flows, nor how a service is run.
"""
