"""Learning from outcomes: outcome tables, grading and labelling, training, targets, certificates, evaluation, reports.

May import the rooms of `router` from `cascade` downwards, and `classifiers`. Must never know the engine, how requests are
delegated, or a server; it is used by the learning commands, and never while a request is served.
"""
