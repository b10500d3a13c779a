"""Where traffic goes among tiers and replicas that are busy, slow or down: queue-aware choice, circuit breaker, retry
budget, prefix affinity, slow starts. Pure but for the state that each class keeps; clocks and chances are passed in.

May import `classifiers` only. Must never know another room of `router`, and none of them may import this one: it is used
by `deployments` alone.
"""
