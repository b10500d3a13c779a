"""Words weighted by rarity (TF-IDF), each text scaled to length 1. Fitted in training, applied with numpy alone."""

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from classifiers.arrays import Floats, Ints, Singles
from classifiers.text.ngrams import N_BUCKETS, Counts, count_grams, token_hashes, tokenize, word_grams


@dataclass(frozen=True)
class WordWeights:
    """column: (N_BUCKETS,) int32, -1 for buckets too rare in training. rarity: (n_columns,) float32."""

    column: NDArray[np.int32]
    rarity: Singles

    def state(self) -> dict[str, Any]:
        """Plain arrays."""
        return asdict(self)

    def values(self, counts: Counts) -> tuple[Ints, NDArray[np.int32], Floats]:
        """(text, column, value) of each known n-gram."""
        column = self.column[counts.bucket]
        known = column >= 0
        text, column = counts.text[known], column[known]
        value = (1 + np.log(counts.count[known])) * self.rarity[column]
        norm = np.sqrt(np.bincount(text, weights=value * value, minlength=len(counts.starts) - 1))
        return text, column, value / norm[text]

    def matrix(self, counts: Counts) -> Any:
        """(n, n_columns) sparse rows of length 1."""
        text, column, value = self.values(counts)
        return sparse.csr_matrix((value, (text, column)), shape=(len(counts.starts) - 1, len(self.rarity)))

    def project(self, counts: Counts, coef: NDArray[Any]) -> Floats:
        """matrix(counts) @ coef without scipy. coef: (n_columns, m); the result (n, m)."""
        text, column, value = self.values(counts)
        n = len(counts.starts) - 1
        if n == 1:
            return np.asarray(value @ coef[column], dtype=np.float64)[None, :]
        return np.asarray(self.matrix(counts) @ coef, dtype=np.float64)


def fit_words(counts: Counts, rarest: int) -> WordWeights:
    """Keep the buckets found in at least `rarest` texts (fewer, where there are few texts)."""
    n = len(counts.starts) - 1
    seen = np.bincount(counts.bucket, minlength=N_BUCKETS)
    kept = np.flatnonzero(seen >= min(rarest, max(1, n // 50)))
    column = np.full(N_BUCKETS, -1, dtype=np.int32)
    column[kept] = np.arange(len(kept))
    return WordWeights(column, (np.log((1 + n) / (1 + seen[kept])) + 1).astype(np.float32))


def explain_words(words: WordWeights, coef: NDArray[Any], text: str) -> dict[str, Floats]:
    """The contribution (n_tiers,) of each n-gram of the text."""
    tokens = tokenize([text])
    hashes = token_hashes(tokens)
    _, buckets = word_grams(tokens, hashes)
    raw = tokens.raw.tobytes()
    words_of_text = [raw[s : s + k].decode("utf-8", "replace") for s, k in zip(tokens.starts, tokens.lengths, strict=True)]
    names = [*words_of_text, *(f"{a} {b}" for a, b in pairwise(words_of_text))]
    name_of = {int(words.column[bucket]): f'"{name}"' for bucket, name in zip(buckets, names, strict=True)}
    _, column, value = words.values(count_grams(tokens, hashes))
    return {name_of[int(c)]: np.asarray(v * coef[c], dtype=np.float64) for c, v in zip(column, value, strict=True)}
