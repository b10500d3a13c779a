"""The default plus features from a pretrained model: better, and slower by 50 to 400 ms a prompt.

`Read` uses SmolLM2's reading (extra `surprisal`, see language.py), `Embedded` MiniLM's sentence embedding (extra `embed`, see
minilm.py). The classifier named `embed` is `Read` if its extra is installed, because it decides far better.
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

DIRECTIONS = {"early": 30, "late": 30, "end": 20, "last": 20}  # main directions kept of each of language.PARTS


class EmbeddedForest(RandomForest):
    """The random forest, with the 30 main directions of the embeddings as additional features."""

    centre_: Floats
    axes_: Singles  # (384, 30)

    def _fit_more(self, view: View) -> None:
        size = min(30, len(view) - 1)
        pca = PCA(size, svd_solver="full").fit(view.meaning)
        self.centre_, self.axes_ = pca.mean_, pca.components_.T.astype(np.float32)

    def _more(self, view: View) -> list[Floats]:
        return [(view.meaning - self.centre_) @ self.axes_]


class Embedded(Ensemble):
    """The default plus sentence embeddings (extra `embed`): about 50 ms a prompt."""

    needs = ("meaning",)
    forest = EmbeddedForest


def fit_directions(view: View) -> dict[str, Any]:
    """The main directions of each part of the readings: centre (width,) and axes (width, at most DIRECTIONS)."""
    found: dict[str, Any] = {}
    for part, most in DIRECTIONS.items():
        pca = PCA(min(most, len(view) - 1), svd_solver="covariance_eigh").fit(view.reading[:, language.PARTS[part]])
        found[part] = {"centre": pca.mean_.astype(np.float32), "axes": pca.components_.T.astype(np.float32)}
    return found


def reduced(directions: dict[str, Any], view: View) -> Floats:
    """(n, len(SURPRISES) + directions) the features that forest and regression take from the readings."""
    read = view.reading
    parts = [(read[:, language.PARTS[part]] - found["centre"]) @ found["axes"] for part, found in directions.items()]
    return np.asarray(np.concatenate([read[:, language.PARTS["surprises"]], *parts], axis=1), dtype=np.float64)


class ReadForest(RandomForest):
    """The random forest, with a language model's reading as additional features."""

    reading_: dict[str, Any]  # see fit_directions

    def _fit_more(self, view: View) -> None:
        self.reading_ = fit_directions(view)

    def _more(self, view: View) -> list[Floats]:
        return [reduced(self.reading_, view)]


class ReadLinear(JointLinear):
    """The regression on words and features, with a language model's reading as additional features."""

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
    """The default plus a small language model's reading (extra `surprisal`): about 400 ms a prompt."""

    needs = ("reading",)
    linear = ReadLinear
    forest = ReadForest
    trees = 2 / 3


def embedded() -> Classifier:
    """Decides best: the default plus SmolLM2 (extra `surprisal`, 400 ms a prompt) or else MiniLM (extra `embed`, 50 ms)."""
    return Read() if language.available() else Embedded()
