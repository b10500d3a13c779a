"""The mean log-odds of unlike classifiers, each calibrated by its nature: the default."""

from typing import ClassVar

import numpy as np

from classifiers.base import Classifier, Floats
from classifiers.forest import RandomForest
from classifiers.linear import JointLinear
from classifiers.view import View


class Ensemble(Classifier):
    """The mean of a linear view (words and features) and a forest: best found, and fast."""

    forest: ClassVar[type[RandomForest]] = RandomForest
    linear_: JointLinear
    forest_: RandomForest

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def _fit(self, view: View, y: Floats, weight: Floats, helpers: Floats) -> None:
        self.linear_ = JointLinear().fit(view, y, weight)
        self.forest_ = self.forest(seed=self.seed).fit(view, y, weight, helpers)

    def logits(self, view: View) -> Floats:
        return np.asarray((self.linear_.logits(view) + self.forest_.logits(view)) / 2)

    def explain(self, text: str) -> dict[str, Floats]:
        return {name: moved / 2 for name, moved in self.linear_.explain(text).items()}
