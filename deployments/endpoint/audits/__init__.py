"""Whether what was promised holds: accepted answers that the top tier is asked about too, and what all ingresses found.

It imports the room's requests and the ledger. It must not know HTTP.
"""
