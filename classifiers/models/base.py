"""The contract of every classifier: texts in, one chance per tier out; and its state as plain arrays.

It is scikit-learn's contract: `__init__` only stores, `fit` returns self, learned attributes end in `_`, `get_params` lists
the constructor's arguments. One thing differs: y has one column per tier, graded in [0, 1], NaN where a tier was not run.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator

from classifiers.arrays import Floats
from classifiers.errors import BadTraining, NotTrained
from classifiers.text.view import View

BATCH = 256  # texts predicted together; limits the memory of a large batch


def logit(p: Floats) -> Floats:
    """log(p / (1 - p)), with p clipped to [1e-6, 1 - 1e-6]."""
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(p) - np.log1p(-p))


def sigmoid(z: Floats) -> Floats:
    """1 / (1 + exp(-z)) without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * z)))


def training_inputs(n: int, y: Floats, sample_weight: Floats | None, helpers: Floats | None) -> tuple[Floats, Floats, Floats]:
    """(y, weight, helpers) as arrays, with defaults. Raises BadTraining for no rows, bad scores, or a tier without scores."""
    y = np.asarray(y, dtype=np.float64)
    if y.ndim != 2 or n != len(y) or not n:
        raise BadTraining(f"{n} texts and scores of shape {y.shape}: expected one row of scores a text")
    known = ~np.isnan(y)
    if not known.any(axis=0).all():
        raise BadTraining(f"tier {int(np.argmin(known.any(axis=0)))} (counting from 0) has no score in any row")
    if not ((y[known] >= 0) & (y[known] <= 1)).all():
        raise BadTraining(f"scores go from {np.nanmin(y)} to {np.nanmax(y)}: expected [0, 1]")

    weight = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    return y, weight, np.zeros((n, 0)) if helpers is None else helpers


class Classifier(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Base of all classifiers. A subclass defines `_fit` and `logits`.

    Learned state is attributes ending in `_` that hold arrays, numbers, texts, or other classifiers.
    """

    needs: ClassVar[tuple[str, ...]] = ()  # slow attributes of View that it uses; each needs an extra package
    prior_: Floats  # (n_tiers,) mean score of each tier in training

    def fit(
        self, texts: Sequence[str] | View, y: Floats, sample_weight: Floats | None = None, helpers: Floats | None = None
    ) -> Self:
        """texts: n strings. y: (n, n_tiers) in [0, 1] or NaN. sample_weight: (n,), all ones if not given.

        helpers: (n, m) scores of other models on the same prompts; some classifiers learn from them too.
        """
        y, weight, extra = training_inputs(len(texts), y, sample_weight, helpers)
        known = ~np.isnan(y) * weight[:, None]
        self.prior_ = (known * np.nan_to_num(y)).sum(0) / np.maximum(known.sum(0), 1e-12)
        self._fit(as_view(texts), y, weight, extra)
        return self

    def predict_proba(self, texts: Sequence[str] | View) -> Floats:
        """(n, n_tiers): the chance that each tier's answer is good; tiers in the order of training."""
        if not hasattr(self, "prior_"):
            raise NotTrained(f"{type(self).__name__} was not fitted; call fit(texts, y) first")
        if isinstance(texts, View):
            return sigmoid(self.logits(texts))
        groups = [texts[i : i + BATCH] for i in range(0, len(texts), BATCH)]
        parts = [sigmoid(self.logits(View(group))) for group in groups]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.prior_)))

    def logits(self, view: View) -> Floats:
        """(n, n_tiers) the log-odds."""
        raise NotImplementedError

    def _fit(self, view: View, y: Floats, weight: Floats, helpers: Floats) -> None:
        raise NotImplementedError

    def explain(self, text: str) -> dict[str, Floats]:
        """(n_tiers,) contributions to the log-odds, by name of a feature or n-gram. Empty if the classifier cannot tell."""
        return {}

    def state(self) -> dict[str, Any]:
        """Parameters and learned attributes as plain values and arrays, for artifact.rebuild."""
        learned = {
            key: value.state() if isinstance(value, Classifier) else value
            for key, value in sorted(vars(self).items())
            if key.endswith("_") and not key.startswith("_")
        }
        return {"class": type(self).__name__, "params": self.get_params(deep=False), "learned": learned}

    def restore(self, learned: dict[str, Any]) -> Self:
        """Set the learned attributes that `state` gave."""
        for key, value in learned.items():
            setattr(self, key, value)
        return self


def as_view(texts: Sequence[str] | View) -> View:
    return texts if isinstance(texts, View) else View(texts)
