"""What replicas owe each other that share a GPU: they start one after the other, and doze while nobody asks.
dozer.py is told an engine, a lock and a way to try one token, and knows neither Ray nor vLLM; board.py lets tiers take turns;
doze_watch.py runs in the ingress.
May import its siblings in `replicas`, `lane`, the ground files and `router`. Must not know tiers, the ledger or the endpoint.
"""
