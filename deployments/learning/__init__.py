"""Keeping what was served, filling in what was not asked, and running the flywheel: router/flywheel with a database and tiers.

May import the ledger, keys, tiers and traffic. Must never know the endpoint, which hands it what was answered, nor the commands.
"""
