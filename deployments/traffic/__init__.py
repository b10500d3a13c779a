"""Traffic over the tiers: how much each has to do (watched_tier.py), where a request goes when queues grow (balance.py, with what
several ingresses report to each other in queue_exchange.py), and a second call when the first is slow (hedged_call.py).

The rules are pure and stand in router/traffic; this room gives them clocks, counts and tasks. May import `tiers` and the rooms
below. Must not know HTTP requests, the endpoint or the Serve application.
"""
