"""A forest of extremely randomised trees for all tiers at once.

Each tree splits for all tiers together, and its leaves average the scores of at least `leaf` prompts: with labels as
noisy as whether one answer is right, averaging random trees loses less than boosting does (docs/experiments.md).
"""

from typing import Any

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor

from classifiers.arrays import Floats
from classifiers.models.base import Classifier, logit
from classifiers.models.trees import average_forest, walk_average
from classifiers.text.latent import fit_latent, latent
from classifiers.text.view import View


def filled(y: Floats) -> Floats:
    """Missing scores become the column's mean, which moves no leaf away from the mean."""
    return np.asarray(np.where(np.isnan(y), np.nanmean(y, axis=0), y))


class RandomForest(Classifier):
    """Extremely randomised trees on hand-made features and latent word use, split for all tiers together."""

    latent_: dict[str, Any]
    forest_: dict[str, Any]

    def __init__(
        self, n_trees: int = 200, leaf: int = 10, depth: int = 12, share: float = 0.3, directions: int = 30, seed: int = 0
    ) -> None:
        self.n_trees = n_trees
        self.leaf = leaf
        self.depth = depth  # deeper trees decide no better and take longer
        self.share = share
        self.directions = directions
        self.seed = seed

    def _fit(self, view: View, y: Floats, weight: Floats, helpers: Floats) -> None:
        self.latent_ = fit_latent(view.words, self.directions, self.seed)
        self._fit_more(view)
        # Trees that must also predict other models' scores split by difficulty, and less by one tier's luck. Only the tiers'
        # columns are kept.
        target = filled(np.concatenate([y, helpers], axis=1))
        leaf = max(2, min(self.leaf, len(y) // 20))
        model = ExtraTreesRegressor(
            self.n_trees, min_samples_leaf=leaf, max_depth=self.depth, max_features=self.share, random_state=self.seed, n_jobs=2
        )
        model.fit(self._features(view), target, sample_weight=weight)
        self.forest_ = average_forest(model, y.shape[1])

    def _features(self, view: View) -> Floats:
        parts = [view.hand, latent(self.latent_, view.words), *self._more(view)]
        return np.asarray(np.concatenate(parts, axis=1), dtype=np.float32)  # as scikit-learn's trees compare

    def _fit_more(self, view: View) -> None:
        """Hook: a subclass learns additional features here."""

    def _more(self, view: View) -> list[Floats]:
        """Hook: the additional features of a subclass."""
        return []

    def logits(self, view: View) -> Floats:
        return logit(np.clip(walk_average(self.forest_, self._features(view)), 0.01, 0.99))
