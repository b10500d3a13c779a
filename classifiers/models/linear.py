"""Logistic regression, one head per tier, on hashed n-grams, on hand-made features, or both.

scikit-learn fits; numpy serves, with results equal to 1e-6 (tests/classifiers/models/test_equal_sklearn.py).
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from classifiers.arrays import Floats, Ints, Singles
from classifiers.models.base import Classifier, logit
from classifiers.text.features import FEATURES
from classifiers.text.rarity import WordWeights, explain_words, fit_words
from classifiers.text.view import View


def graded_rows(y: Floats, weight: Floats) -> tuple[Ints, Ints, Floats]:
    """Each graded score y as two weighted rows: a success of weight y and a failure of weight 1 - y. NaN gives no rows.

    Returns (row, label, weight).
    """
    row = np.flatnonzero(~np.isnan(y))
    rows, labels = np.concatenate([row, row]), np.repeat([1, 0], len(row))
    weights = np.concatenate([y[row] * weight[row], (1 - y[row]) * weight[row]])
    keep = weights > 0
    return rows[keep], labels[keep], weights[keep]


def fit_head(x: Any, y: Floats, weight: Floats, strength: float) -> tuple[Floats, float]:
    """Coefficients and intercept of one tier. A tier that always wins or always fails gets its smoothed prior."""
    rows, labels, weights = graded_rows(y, weight)
    if len(np.unique(labels)) < 2:
        wins = float(weights[labels == 1].sum())
        return np.zeros(x.shape[1]), float(logit(np.array((wins + 0.5) / (weights.sum() + 1.0))))
    model = LogisticRegression(C=strength, max_iter=300, tol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 300 steps are enough for routing
        model.fit(x[rows], labels, sample_weight=weights)
    return model.coef_[0].astype(np.float64), float(model.intercept_[0])


def fit_heads(x: Any, y: Floats, weight: Floats, strength: float) -> tuple[Floats, Floats]:
    """Coefficients (n_features, n_tiers) and intercepts (n_tiers,)."""
    heads = [fit_head(x, y[:, k], weight, strength) for k in range(y.shape[1])]
    return np.stack([coef for coef, _ in heads], axis=1), np.array([bias for _, bias in heads])


def pooled(coef: Floats, bias: Floats, centre: Floats, own: float) -> tuple[Floats, Floats]:
    """Coefficients (n_features, n_tiers) pulled to their mean over tiers; the score of the mean text `centre` stays.

    Much the same makes a prompt hard for every tier. The differences between tiers decide, and they are mostly noise.
    """
    pulled = own * coef + (1 - own) * coef.mean(axis=1, keepdims=True)
    return pulled, bias + centre @ (coef - pulled)


class HandLinear(Classifier):
    """Logistic regression on the hand-made features: length, numbers, structure, key words."""

    mean_: Floats
    scale_: Floats
    coef_: Floats  # (n_features, n_tiers)
    bias_: Floats  # (n_tiers,)

    def __init__(self, strength: float = 0.02) -> None:
        self.strength = strength

    def _fit(self, view: View, y: Floats, weight: Floats, helpers: Floats) -> None:
        self.mean_, self.scale_ = view.hand.mean(0), view.hand.std(0) + 1e-6
        self.coef_, self.bias_ = fit_heads(self._scaled(view.hand), y, weight, self.strength)

    def _scaled(self, x: Floats) -> Floats:
        # One feature far outside its training range must not decide alone.
        return np.asarray(np.clip((x - self.mean_) / self.scale_, -4, 4))

    def logits(self, view: View) -> Floats:
        return np.asarray(self._scaled(view.hand) @ self.coef_ + self.bias_)

    def explain(self, text: str) -> dict[str, Floats]:
        moved = self._scaled(View([text]).hand)[0][:, None] * self.coef_
        return dict(zip(FEATURES, moved, strict=True))


class NgramLinear(Classifier):
    """Logistic regression on hashed words and pairs of words, weighted by rarity (TF-IDF)."""

    words_: dict[str, Any]  # see rarity.WordWeights
    coef_: Singles  # (n_columns, n_tiers)
    bias_: Floats

    def __init__(self, strength: float = 0.5, rarest: int = 3) -> None:
        self.strength = strength
        self.rarest = rarest

    def _fit(self, view: View, y: Floats, weight: Floats, helpers: Floats) -> None:
        words = fit_words(view.words, self.rarest)
        self.words_ = words.state()
        coef, self.bias_ = fit_heads(words.matrix(view.words), y, weight, self.strength)
        self.coef_ = coef.astype(np.float32)

    def logits(self, view: View) -> Floats:
        return WordWeights(**self.words_).project(view.words, self.coef_) + self.bias_

    def explain(self, text: str) -> dict[str, Floats]:
        return explain_words(WordWeights(**self.words_), self.coef_, text)


class JointLinear(Classifier):
    """Logistic regression on words and hand-made features together."""

    words_: dict[str, Any]  # see rarity.WordWeights
    mean_: Floats
    scale_: Floats
    coef_: Singles  # (n_columns, n_tiers) of the words
    hand_: Floats  # (n_features, n_tiers) of `_dense`
    bias_: Floats

    def __init__(self, strength: float = 1.0, rarest: int = 3, hand_weight: float = 0.1, own: float = 0.5) -> None:
        self.strength = strength
        self.rarest = rarest
        self.hand_weight = hand_weight
        self.own = own  # weight of a tier's own coefficients; the rest is the mean over tiers, see pooled

    def _fit(self, view: View, y: Floats, weight: Floats, helpers: Floats) -> None:
        words = fit_words(view.words, self.rarest)
        self.words_ = words.state()
        dense = self._dense(view)
        self.mean_, self.scale_ = dense.mean(0), dense.std(0) + 1e-6
        x = sparse.hstack([words.matrix(view.words), sparse.csr_matrix(self._scaled(dense))]).tocsr()
        coef, bias = fit_heads(x, y, weight, self.strength)
        coef, self.bias_ = pooled(coef, bias, np.asarray(x.mean(axis=0)).ravel(), self.own)
        n = len(words.rarity)
        self.coef_, self.hand_ = coef[:n].astype(np.float32), coef[n:]

    def _dense(self, view: View) -> Floats:
        """(n, n_features) the features beside the words. Hook: a subclass may add columns."""
        return view.hand

    def dense_names(self) -> Sequence[str]:
        """The names of the columns of `_dense`."""
        return FEATURES

    def _scaled(self, x: Floats) -> Floats:
        # A row of words has length 1; with this small weight the 68 features have about as much influence.
        return np.asarray(self.hand_weight * np.clip((x - self.mean_) / self.scale_, -4, 4))

    def logits(self, view: View) -> Floats:
        from_words = WordWeights(**self.words_).project(view.words, self.coef_)
        return np.asarray(from_words + self._scaled(self._dense(view)) @ self.hand_ + self.bias_)

    def explain(self, text: str) -> dict[str, Floats]:
        features = self._scaled(self._dense(View([text])))[0][:, None] * self.hand_
        words = explain_words(WordWeights(**self.words_), self.coef_, text)
        return {**words, **dict(zip(self.dense_names(), features, strict=True))}
