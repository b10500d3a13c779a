"""The length rule: long prompts are hard. The baseline that any learned classifier must beat."""

from classifiers.base import Classifier, Floats
from classifiers.linear import fit_heads
from classifiers.ngrams import Tokens

import numpy as np


class LengthRule(Classifier):
    """Logistic regression on the logarithm of the text's length in bytes, and nothing else."""

    coef_: Floats  # (1, n_tiers)
    bias_: Floats

    def __init__(self, strength: float = 1.0) -> None:
        self.strength = strength

    def _fit(self, texts: list[str], y: Floats, weight: Floats) -> None:
        size = np.array([len(text.encode("utf-8", "replace")) for text in texts])
        self.coef_, self.bias_ = fit_heads(np.log1p(size)[:, None] - 6, y, weight, self.strength)

    def logits(self, tokens: Tokens) -> Floats:
        size = np.diff(tokens.bounds) - 1
        return np.asarray((np.log1p(size)[:, None] - 6) @ self.coef_ + self.bias_)
