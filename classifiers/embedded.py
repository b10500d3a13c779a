"""The default with sentence embeddings besides: slower by some 50 ms a prompt, better where topics decide.

Needs the extra `embed` (see minilm.py).
"""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import PCA

from classifiers.base import Classifier, Floats
from classifiers.forest import RandomForest
from classifiers.linear import JointLinear, fit_heads
from classifiers.rarity import WordWeights, fit_words
from classifiers.view import View


class EmbeddedForest(RandomForest):
    """The random forest with the 30 main directions of the embeddings as further features."""

    centre_: Floats
    axes_: NDArray[np.float32]  # (384, 30)

    def _fit_more(self, view: View) -> None:
        size = min(30, len(view) - 1)
        pca = PCA(size, svd_solver="full").fit(view.meaning)
        self.centre_, self.axes_ = pca.mean_, pca.components_.T.astype(np.float32)

    def _more(self, view: View) -> list[Floats]:
        return [(view.meaning - self.centre_) @ self.axes_]


class EmbeddedLinear(JointLinear):
    """Logistic regression on words, hand-made features and embeddings together."""

    centre_: Floats
    meaning_: Floats  # (384, n_tiers)

    def _fit(self, view: View, y: Floats, weight: Floats, helpers: Floats) -> None:
        words = fit_words(view.words, self.rarest)
        self.words_ = words.state()
        self.mean_, self.scale_ = view.hand.mean(0), view.hand.std(0) + 1e-6
        self.centre_ = view.meaning.mean(0)
        dense = np.concatenate([self._scaled(view.hand), view.meaning - self.centre_], axis=1)
        x = sparse.hstack([words.matrix(view.words), sparse.csr_matrix(dense)]).tocsr()
        coef, self.bias_ = fit_heads(x, y, weight, self.strength)
        n, d = len(words.rarity), view.hand.shape[1]
        self.coef_, self.hand_, self.meaning_ = coef[:n].astype(np.float32), coef[n : n + d], coef[n + d :]

    def logits(self, view: View) -> Floats:
        from_words = WordWeights(**self.words_).project(view.words, self.coef_)
        from_rest = self._scaled(view.hand) @ self.hand_ + (view.meaning - self.centre_) @ self.meaning_
        return np.asarray(from_words + from_rest + self.bias_)


class Embedded(Classifier):
    """The default with sentence embeddings besides (extra `embed`): some 50 ms a prompt."""

    needs_meaning = True
    linear_: EmbeddedLinear
    forest_: EmbeddedForest

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def _fit(self, view: View, y: Floats, weight: Floats, helpers: Floats) -> None:
        self.linear_ = EmbeddedLinear().fit(view, y, weight)
        self.forest_ = EmbeddedForest(seed=self.seed).fit(view, y, weight, helpers)

    def logits(self, view: View) -> Floats:
        return np.asarray((self.linear_.logits(view) + self.forest_.logits(view)) / 2)

    def explain(self, text: str) -> dict[str, Floats]:
        return {name: moved / 2 for name, moved in self.linear_.explain(text).items()}
