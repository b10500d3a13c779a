"""Which kept requests teach, certify and test: cleaning, near-duplicates, sides, and rows as other programs read them.

May import `served` and the rooms of `router` below. Must never know how a router is made or tried.
"""
