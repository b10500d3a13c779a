"""Logistic regression, one head per tier, on hashed n-grams or on hand-made features.

scikit-learn fits; the coefficients are served through numpy (equal to 1e-6, tests/classifiers/test_linear.py).
"""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from classifiers.base import Classifier, Floats, logit, tokens_of
from classifiers.features import FEATURES, hand_features
from classifiers.ngrams import Counts, Tokens, count_grams


def graded_rows(y: Floats, weight: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """A graded score as two weighted rows: `y` of a success and `1 - y` of a failure. Rows without a score go.

    Returns (row, label, weight).
    """
    row = np.flatnonzero(~np.isnan(y))
    rows, labels = np.concatenate([row, row]), np.repeat([1, 0], len(row))
    weights = np.concatenate([y[row] * weight[row], (1 - y[row]) * weight[row]])
    keep = weights > 0
    return rows[keep], labels[keep], weights[keep]


def fit_head(x: Any, y: Floats, weight: Floats, strength: float) -> tuple[Floats, float]:
    """Coefficients and intercept of one tier. A tier that only ever wins or fails gets its smoothed prior."""
    rows, labels, weights = graded_rows(y, weight)
    if len(np.unique(labels)) < 2:
        wins = float(weights[labels == 1].sum())
        return np.zeros(x.shape[1]), float(logit(np.array((wins + 0.5) / (weights.sum() + 1.0))))
    model = LogisticRegression(C=strength, max_iter=300, tol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 300 steps are enough to route by
        model.fit(x[rows], labels, sample_weight=weights)
    return model.coef_[0].astype(np.float64), float(model.intercept_[0])


def fit_heads(x: Any, y: Floats, weight: Floats, strength: float) -> tuple[Floats, Floats]:
    """Coefficients (n_features, n_tiers) and intercepts (n_tiers,)."""
    heads = [fit_head(x, y[:, k], weight, strength) for k in range(y.shape[1])]
    return np.stack([coef for coef, _ in heads], axis=1), np.array([bias for _, bias in heads])


class HandLinear(Classifier):
    """Logistic regression on the hand-made features, standardised."""

    mean_: Floats
    scale_: Floats
    coef_: Floats  # (n_features, n_tiers)
    bias_: Floats  # (n_tiers,)

    def __init__(self, strength: float = 0.1) -> None:
        self.strength = strength

    def _fit(self, texts: list[str], y: Floats, weight: Floats) -> None:
        x = np.concatenate([hand_features(tokens) for tokens in tokens_of(texts)])
        self.mean_, self.scale_ = x.mean(0), x.std(0) + 1e-6
        self.coef_, self.bias_ = fit_heads(self._scaled(x), y, weight, self.strength)

    def _scaled(self, x: Floats) -> Floats:
        # A feature never seen to vary, or far outside what was seen, must not decide alone.
        return np.asarray(np.clip((x - self.mean_) / self.scale_, -4, 4))

    def logits(self, tokens: Tokens) -> Floats:
        return np.asarray(self._scaled(hand_features(tokens)) @ self.coef_ + self.bias_)


class NgramLinear(Classifier):
    """Logistic regression on hashed word and character n-grams, weighted by rarity (TF-IDF)."""

    index_: NDArray[np.int32]  # (2 ** (bits + 1),) bucket -> column, -1 for buckets too rare in training
    rarity_: NDArray[np.float32]  # (n_columns,) inverse document frequency
    coef_: NDArray[np.float32]  # (n_columns, n_tiers)
    bias_: Floats

    def __init__(self, bits: int = 17, rarest: int = 3, strength: float = 2.0, chars: bool = True) -> None:
        self.bits = bits
        self.rarest = rarest
        self.strength = strength
        self.chars = chars

    def _fit(self, texts: list[str], y: Floats, weight: Floats) -> None:
        chunks = [count_grams(tokens, self.bits, self.chars) for tokens in tokens_of(texts)]
        seen = np.zeros(2 << self.bits, dtype=np.int64)
        for chunk in chunks:
            np.add.at(seen, chunk.bucket, 1)
        kept = np.flatnonzero(seen >= min(self.rarest, max(1, len(texts) // 50)))
        self.index_ = np.full(2 << self.bits, -1, dtype=np.int32)
        self.index_[kept] = np.arange(len(kept))
        self.rarity_ = (np.log((1 + len(texts)) / (1 + seen[kept])) + 1).astype(np.float32)
        x = sparse.vstack(
            [self._matrix(chunk, n) for chunk, n in zip(chunks, _sizes(len(texts)), strict=True)]
        )
        coef, self.bias_ = fit_heads(x.tocsr(), y, weight, self.strength)
        self.coef_ = coef.astype(np.float32)

    def _weights(self, counts: Counts, n: int) -> tuple[NDArray[np.int64], NDArray[np.int32], Floats]:
        """(text, column, value) of each known n-gram; words and characters each scaled to length 1 in a text."""
        column = self.index_[counts.bucket]
        known = column >= 0
        text, column = counts.text[known], column[known]
        value = (1 + np.log(counts.count[known])) * self.rarity_[column]
        block = text * 2 + (counts.bucket[known] >> self.bits)
        norm = np.sqrt(np.bincount(block, weights=value * value, minlength=2 * n))
        return text, column, value / norm[block]

    def _matrix(self, counts: Counts, n: int) -> Any:
        text, column, value = self._weights(counts, n)
        return sparse.csr_matrix((value, (text, column)), shape=(n, len(self.rarity_)))

    def logits(self, tokens: Tokens) -> Floats:
        n = len(tokens.bounds) - 1
        text, column, value = self._weights(count_grams(tokens, self.bits, self.chars), n)
        moved = self.coef_[column] * value[:, None]
        sums = [np.bincount(text, weights=moved[:, k], minlength=n) for k in range(self.coef_.shape[1])]
        return np.stack(sums, axis=1) + self.bias_


def _sizes(n: int) -> list[int]:
    """How many texts are in each chunk of tokens_of."""
    from classifiers.base import CHUNK

    return [min(CHUNK, n - i) for i in range(0, n, CHUNK)]


class NgramHandLinear(Classifier):
    """The mean log-odds of the two regressions above: the simple classifier that everything else must beat."""

    words_: NgramLinear
    hand_: HandLinear

    def __init__(self, strength: float = 2.0) -> None:
        self.strength = strength

    def _fit(self, texts: list[str], y: Floats, weight: Floats) -> None:
        self.words_ = NgramLinear(strength=self.strength)
        self.hand_ = HandLinear()
        for part in (self.words_, self.hand_):
            part.fit(texts, y, weight)

    def logits(self, tokens: Tokens) -> Floats:
        return (self.words_.logits(tokens) + self.hand_.logits(tokens)) / 2


__all__ = ["FEATURES", "HandLinear", "NgramHandLinear", "NgramLinear"]
