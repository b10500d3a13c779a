"""The default with what a pretrained model makes of a text besides: slower by 50 to 400 ms a prompt, and better.

`Read` takes SmolLM2's reading (extra `surprisal`, see language.py), `Embedded` MiniLM's sentence embedding (extra `embed`, see
minilm.py). The name `embed` stands for the first where its extra is installed: it decides better by far.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.decomposition import PCA

from classifiers.arrays import Floats, Singles
from classifiers.models.base import Classifier
from classifiers.models.ensemble import Ensemble
from classifiers.models.forest import RandomForest
from classifiers.models.linear import JointLinear
from classifiers.pretrained import language
from classifiers.text.features import FEATURES
from classifiers.text.view import View

DIRECTIONS = {"early": 30, "late": 30, "end": 20, "last": 20}  # of each part of a reading; see language.PARTS


class EmbeddedForest(RandomForest):
    """The random forest with the 30 main directions of the embeddings as further features."""

    centre_: Floats
    axes_: Singles  # (384, 30)

    def _fit_more(self, view: View) -> None:
        size = min(30, len(view) - 1)
        pca = PCA(size, svd_solver="full").fit(view.meaning)
        self.centre_, self.axes_ = pca.mean_, pca.components_.T.astype(np.float32)

    def _more(self, view: View) -> list[Floats]:
        return [(view.meaning - self.centre_) @ self.axes_]


class Embedded(Ensemble):
    """The default with sentence embeddings besides (extra `embed`): some 50 ms a prompt."""

    needs = ("meaning",)
    forest = EmbeddedForest


def fit_directions(view: View) -> dict[str, Any]:
    """The main directions of each part of the readings: its mean, and axes of (width, at most DIRECTIONS)."""
    found: dict[str, Any] = {}
    for part, most in DIRECTIONS.items():
        pca = PCA(min(most, len(view) - 1), svd_solver="covariance_eigh").fit(view.reading[:, language.PARTS[part]])
        found[part] = {"centre": pca.mean_.astype(np.float32), "axes": pca.components_.T.astype(np.float32)}
    return found


def reduced(directions: dict[str, Any], view: View) -> Floats:
    """(n, len(SURPRISES) + directions) what a forest and a regression take of the readings."""
    read = view.reading
    parts = [(read[:, language.PARTS[part]] - found["centre"]) @ found["axes"] for part, found in directions.items()]
    return np.asarray(np.concatenate([read[:, language.PARTS["surprises"]], *parts], axis=1), dtype=np.float64)


class ReadForest(RandomForest):
    """The random forest with a language model's reading as further features."""

    reading_: dict[str, Any]  # see fit_directions

    def _fit_more(self, view: View) -> None:
        self.reading_ = fit_directions(view)

    def _more(self, view: View) -> list[Floats]:
        return [reduced(self.reading_, view)]


class ReadLinear(JointLinear):
    """The regression on words and features with a language model's reading as further features."""

    reading_: dict[str, Any]  # see fit_directions

    def _fit(self, view: View, y: Floats, weight: Floats, helpers: Floats) -> None:
        self.reading_ = fit_directions(view)
        super()._fit(view, y, weight, helpers)

    def _dense(self, view: View) -> Floats:
        return np.concatenate([view.hand, reduced(self.reading_, view)], axis=1)

    def dense_names(self) -> Sequence[str]:
        parts = ((part, found["axes"].shape[1]) for part, found in self.reading_.items())
        names = [f"reading: {part} {i + 1}" for part, n in parts for i in range(n)]
        return [*FEATURES, *(f"surprise: {name}" for name in language.SURPRISES), *names]


class Read(Ensemble):
    """The default with a small language model's reading besides (extra `surprisal`): some 400 ms a prompt."""

    needs = ("reading",)
    linear = ReadLinear
    forest = ReadForest
    trees = 2 / 3


def embedded() -> Classifier:
    """Decides best: the default with SmolLM2 reading each prompt (extra `surprisal`, 400 ms), else MiniLM (`embed`, 50 ms)."""
    return Read() if language.available() else Embedded()
