"""Replicas that doze: idle ones give their memory on the card back, and take it again for the next call.
dozer.py is told an engine, a lock and a way to try one token, and knows neither Ray nor vLLM; card_board.py lets tiers take turns.
May import its siblings in `replicas`, the ground files and `router`. Must not know tiers, the ledger or the endpoint.
"""
