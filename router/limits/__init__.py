"""Limits on what requests may cost: an API key's, the client's own, a delegation's, and what is reserved before a request runs.

May import request, decide and costs, the ground files and `classifiers`. Must not know cascade or delegate: the client's limits
are kept around any flow. Everything here is pure; the time is an argument, and deployments/ledger keeps the reservations.
"""
