"""Learned routers on every ingress: their files, the slots that say which decides, and the change from one to another.

May import the ledger and the router. Must never know how a router was learned, only which one is to be used.
"""
