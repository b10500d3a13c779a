"""A replica's part in an answer that goes on at another one: it tells each event's tokens, or begins with those that came.

Imports `router.request.resuming` and, in one file, vLLM. Knows nothing of lanes, tiers or clients.
"""
