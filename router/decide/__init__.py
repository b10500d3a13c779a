"""Decides the tier of one request, before any is asked: hard constraints, the policy on chances and costs, sessions, and
the certificates that promise a quality.

May import request, `classifiers`, the settings, the errors and `router.types`. Must never know how an answer is made or
checked, what a key may do, nor any server: its functions are pure, and only `Sessions` and `Promises` keep state.
"""
