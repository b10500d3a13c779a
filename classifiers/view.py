"""Texts with what classifiers look at, each computed once however many classifiers look."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from classifiers.features import hand_features
from classifiers.ngrams import Counts, Tokens, count_grams, stack, token_hashes, tokenize
from classifiers.text import clip

Floats = NDArray[np.float64]
CHUNK = 64  # texts tokenised together: enough to spread the cost of numpy's calls, few enough for the cache


class View:
    """n texts, clipped; `hand` and `words` are made at first use."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = [clip(text) for text in texts]

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def _parts(self) -> list[tuple[Tokens, NDArray[np.uint64]]]:
        groups = [self.texts[i : i + CHUNK] for i in range(0, len(self.texts), CHUNK)]
        tokens = [tokenize(group) for group in groups]
        return [(part, token_hashes(part)) for part in tokens]

    @cached_property
    def hand(self) -> Floats:
        """(n, len(FEATURES)) hand-made features."""
        return np.concatenate([hand_features(*part) for part in self._parts])

    @cached_property
    def words(self) -> Counts:
        """Counts of hashed word n-grams."""
        return stack([count_grams(*part) for part in self._parts])

    @cached_property
    def size(self) -> Floats:
        """(n,) length in bytes."""
        return np.concatenate([np.diff(part.bounds) - 1.0 for part, _ in self._parts])

    @cached_property
    def meaning(self) -> Floats:
        """(n, 384) sentence embeddings; needs the extra `embed`."""
        from classifiers.minilm import encoder  # late: loads 90 MB of weights

        return encoder().encode(self.texts).astype(np.float64)

    def take(self, rows: NDArray[np.int64]) -> "View":
        """Some of the texts, with what was already computed for them."""
        picked = View.__new__(View)
        picked.texts = [self.texts[i] for i in rows]
        picked.__dict__.update(hand=self.hand[rows], words=self.words.take(rows), size=self.size[rows])
        if "meaning" in self.__dict__:
            picked.__dict__["meaning"] = self.meaning[rows]
        return picked
