"""A tier that learns from the one above it, by the flywheel: rows from the log, a student's run, gates, books.

May import deployments/distil and the other rooms of learning but `steps` and the flywheel, which call it.
"""
