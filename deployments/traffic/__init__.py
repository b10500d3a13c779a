"""Gives the pure rules of router/traffic their clocks, counts and tasks: how busy each tier is (watched_tier.py), where a request
goes when queues grow (balance.py, queue_exchange.py), and a second call when the first is slow (hedged_call.py).
May import `tiers` and the rooms below. Must not know HTTP requests, the endpoint or the Serve application.
"""
