"""The mean score of the most similar prompts, to which most published routers amount."""

from typing import Any

import numpy as np

from classifiers.arrays import Floats, Singles
from classifiers.models.base import Classifier, logit
from classifiers.text.latent import fit_latent, latent
from classifiers.text.view import View


class Neighbours(Classifier):
    """The mean score of the 100 training prompts that are nearest in latent word use (kNN)."""

    latent_: dict[str, Any]
    places_: Singles  # (n_rows, directions)
    scores_: Singles  # (n_rows, n_tiers); a missing score is the tier's mean

    def __init__(self, k: int = 100, directions: int = 64, prior_rows: float = 5.0, seed: int = 0) -> None:
        self.k = k
        self.directions = directions
        self.prior_rows = prior_rows
        self.seed = seed

    def _fit(self, view: View, y: Floats, weight: Floats, helpers: Floats) -> None:
        self.latent_ = fit_latent(view.words, self.directions, self.seed)
        self.places_ = latent(self.latent_, view.words).astype(np.float32)
        self.scores_ = np.where(np.isnan(y), self.prior_, y).astype(np.float32)

    def logits(self, view: View) -> Floats:
        near = latent(self.latent_, view.words).astype(np.float32) @ self.places_.T
        k = min(self.k, max(5, near.shape[1] // 5))
        index = np.argpartition(-near, k - 1, axis=1)[:, :k]
        mean = (self.scores_[index].sum(1) + self.prior_rows * self.prior_) / (k + self.prior_rows)
        return logit(np.clip(mean, 0.01, 0.99))
