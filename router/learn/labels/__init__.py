"""Labelling: asks a running ladder prompts, grades the answers, and keeps a journal so that nothing paid for is lost.

May import `router.learn` beside it and what that may. Must never know how outcomes are learned from; only commands use it.
"""
