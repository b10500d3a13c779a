"""Boosted trees on the hand-made features, one head per tier."""

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from classifiers.arrays import Floats
from classifiers.models.base import Classifier, logit
from classifiers.models.linear import graded_rows
from classifiers.models.trees import Forest, flatten, walk
from classifiers.text.view import View


class Boosted(Classifier):
    """Boosted trees on the hand-made features: they find thresholds and combinations of them."""

    forest_: Forest

    def __init__(self, n_trees: int = 150, leaves: int = 8, rate: float = 0.03, seed: int = 0) -> None:
        self.n_trees = n_trees
        self.leaves = leaves
        self.rate = rate
        self.seed = seed

    def _model(self, n: int) -> HistGradientBoostingClassifier:
        return HistGradientBoostingClassifier(
            learning_rate=self.rate,
            max_iter=self.n_trees,
            max_leaf_nodes=self.leaves,
            max_depth=5,
            min_samples_leaf=max(5, min(30, n // 20)),
            l2_regularization=20.0,
            max_features=0.3,
            early_stopping=False,
            random_state=self.seed,
        )

    def _fit(self, view: View, y: Floats, weight: Floats, helpers: Floats) -> None:
        x = view.hand
        models: list[HistGradientBoostingClassifier | None] = []
        for k in range(y.shape[1]):
            rows, labels, weights = graded_rows(y[:, k], weight)
            one_class = len(np.unique(labels)) < 2
            models.append(None if one_class else self._model(len(x)).fit(x[rows], labels, sample_weight=weights))
        self.forest_ = flatten(models, list(logit(np.clip(self.prior_, 0.01, 0.99))))

    def logits(self, view: View) -> Floats:
        return walk(self.forest_, view.hand)
