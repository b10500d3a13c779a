"""Grades without labels: comparing answers, the top tier as a blind judge, and which tiers are still to be asked.

May import `served` and the rooms of `router` below. Must never know what the grades are used for.
"""
