"""Token lists through a model in numpy, lists of like length together, batches side by side on all cores.

One thread of BLAS a batch: threads of one product wait for each other, and where something else runs beside them they wait
ten times as long as they work.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits

from classifiers.arrays import Singles

Ids = Sequence[Sequence[int]]


def batched(lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Positions in groups of like length, each of at most `most_tokens` with its padding; a longer one is alone."""
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if not groups or (len(groups[-1]) + 1) * lengths[i] > most_tokens:
            groups.append([])
        groups[-1].append(i)
    return groups


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(ids: Ids, width: int, most_tokens: int, forward: Callable[[Ids], Singles]) -> Singles:
    """(n, width): `forward` of all lists; it gets some at a time, none of them empty, and pads. Zeros for an empty one."""
    out = np.zeros((len(ids), width), dtype=np.float32)
    some = [i for i, row in enumerate(ids) if len(row)]
    groups = [[some[k] for k in group] for group in batched([len(ids[i]) for i in some], most_tokens)]

    def fill(group: list[int]) -> None:
        out[group] = forward([ids[i] for i in group])

    with threadpool_limits(1, "blas"):
        if len(groups) < 2:
            for group in groups:
                fill(group)
            return out
        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(fill, reversed(groups)))  # the longest first, so that none is waited for alone at the end
    return out
