"""Escalation: a smaller tier answers first, and its answer is judged before it is accepted, or it is raced by a larger tier.

May import request, decide and costs, the ground files and `classifiers`. Must not know limits, which wraps flows from outside, or
delegate, whose flow it is handed as a function. Everything here is pure: flows yield steps and are sent replies.
"""
