"""The length rule, long prompts are hard: the baseline that every other classifier must beat."""

import numpy as np

from classifiers.arrays import Floats
from classifiers.models.base import Classifier
from classifiers.models.linear import fit_heads
from classifiers.text.view import View


class LengthRule(Classifier):
    """Logistic regression on the logarithm of the text's length alone: a baseline."""

    coef_: Floats  # (1, n_tiers)
    bias_: Floats

    def __init__(self, strength: float = 1.0) -> None:
        self.strength = strength

    def _fit(self, view: View, y: Floats, weight: Floats, helpers: Floats) -> None:
        self.coef_, self.bias_ = fit_heads(self._length(view), y, weight, self.strength)

    @staticmethod
    def _length(view: View) -> Floats:
        return np.asarray(np.log1p(view.size)[:, None] - 6)  # about 0 at 400 bytes

    def logits(self, view: View) -> Floats:
        return np.asarray(self._length(view) @ self.coef_ + self.bias_)

    def explain(self, text: str) -> dict[str, Floats]:
        return {"log_bytes": self._length(View([text]))[0, 0] * self.coef_[0]}
