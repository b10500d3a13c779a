"""The default with sentence embeddings besides: slower by some 50 ms a prompt, better where topics decide.

Needs the extra `embed` (see minilm.py). Only the forest sees the embeddings: in the linear view they cost what they gave.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from classifiers.base import Floats
from classifiers.ensemble import Ensemble
from classifiers.forest import RandomForest
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


class Embedded(Ensemble):
    """The default with sentence embeddings besides (extra `embed`): some 50 ms a prompt."""

    needs_meaning = True
    forest = EmbeddedForest
