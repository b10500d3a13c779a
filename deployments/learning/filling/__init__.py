"""Asking the tiers that were not asked, at idle and within a budget, and grading what they answer.

May import `kept`, `live`, the lease, tiers and traffic. Must never know what is learned from the grades.
"""
