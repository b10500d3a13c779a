"""Runs token lists through a numpy model: lists of similar length in one batch, and batches in parallel on all cores.

Each batch has one BLAS thread: the threads of one product wait for each other, and on a busy machine they wait ten times as
long as they work.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits

from classifiers.arrays import Singles

Ids = Sequence[Sequence[int]]


def batched(lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Positions in groups of similar length, each of at most `most_tokens` with padding; a longer list is a group by itself."""
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if not groups or (len(groups[-1]) + 1) * lengths[i] > most_tokens:
            groups.append([])
        groups[-1].append(i)
    return groups


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def attention(query: Singles, key: Singles, value: Singles, hide: Singles) -> Singles:
    """The values mixed by softmax of query and key, (..., tokens, size) each. hide: -1e9 where a token must not look, else 0."""
    score = query @ key.swapaxes(-1, -2) / np.float32(np.sqrt(query.shape[-1])) + hide
    score = np.exp(score - score.max(-1, keepdims=True))
    return np.asarray((score / score.sum(-1, keepdims=True)) @ value)


def run(ids: Ids, width: int, most_tokens: int, forward: Callable[[Ids], Singles]) -> Singles:
    """(n, width): `forward`, which pads, of batches of the lists. An empty list gives zeros."""
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
            list(pool.map(fill, reversed(groups)))  # the longest first, so that the last batches are short
    return out
