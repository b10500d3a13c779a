"""Requests for embeddings, rerank and score: which service answers, what bodies and answers may hold, how many tokens they have.

May import errors, settings, types and the JSON of `router.request`. Must not know decisions, flows or protocols: such a request
is one call, whose bytes go to the service and back, and only `model` is written anew.
"""
