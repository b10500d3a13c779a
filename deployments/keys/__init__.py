"""API keys: who may use the endpoint, within which limits and budgets.

`access` decides at the start of the server whether a key is asked for, `key_store` keeps keys in the ledger's database,
`admission` finds a request's key and admits or refuses the request. The room may import the ledger and the router; it must
not know the endpoint, the tiers, the cost page or the metrics.
"""
