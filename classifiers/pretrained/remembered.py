"""A cache around a slow function of texts: a training run asks for the same rows three times.

A server asks twice: first in a thread, so that its event loop does not wait, and then when it decides.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from threading import Lock

import numpy as np

from classifiers.arrays import Singles

MOST = 16_384  # texts in the cache; 150 MB for the widest rows


class Remembered:
    """Calls `compute`, which maps n texts to rows (n, width), once for each text."""

    def __init__(self, compute: Callable[[Sequence[str]], Singles], width: int) -> None:
        self.compute = compute
        self.width = width
        self.known: dict[bytes, Singles] = {}
        self.lock = Lock()

    def __call__(self, texts: Sequence[str]) -> Singles:
        keys = [blake2b(text.encode("utf-8", "replace"), digest_size=16).digest() for text in texts]
        old = {key: self.known.get(key) for key in keys}  # looked up first: another thread may delete them meanwhile
        new = {key: text for key, text in zip(keys, texts, strict=True) if old[key] is None}
        found = dict(zip(new, self.compute(list(new.values())), strict=True)) if new else {}
        rows = {**old, **found}
        out = np.array([rows[key] for key in keys], dtype=np.float32).reshape(len(texts), self.width)
        with self.lock:
            self.known.update(found)
            while len(self.known) > MOST:
                del self.known[next(iter(self.known))]  # the oldest
        return out
