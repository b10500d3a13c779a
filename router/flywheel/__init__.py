"""Learning from what was served: which rows, which grades, which gates, which sequential tests. All of it is pure.

May import every other room of `router`. Must never know the database, HTTP, or when it is called; only deployments/learning and
the command line use it.
"""
