"""The default classifier compiled for one text, because a decision must take a fraction of a millisecond.

Only servers and benchmarks import this room; it may import all of `classifiers`. The other rooms must not know it: they
work without numba, and give the same results more slowly.
"""
