"""Learned routers and weights on every ingress: their files, the slots that say which decides, the change from one to another.

May import the ledger, tiers and traffic, the applications of replicas, and the router. Must never know how anything was learned,
only what is to be used.
"""
