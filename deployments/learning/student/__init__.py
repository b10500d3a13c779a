"""A tier that learns from the one above it, by the flywheel: rows from the log, a student's run, its gates and its books.

May import deployments/distil and the other rooms of learning. Must never know `steps` and the flywheel, which call it.
"""
