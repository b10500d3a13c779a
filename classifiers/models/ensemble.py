"""The default classifier: the mean log-odds of two unlike classifiers, both calibrated by construction."""

from typing import ClassVar

import numpy as np

from classifiers.arrays import Floats
from classifiers.models.base import Classifier
from classifiers.models.forest import RandomForest
from classifiers.models.linear import JointLinear
from classifiers.text.view import View


class Ensemble(Classifier):
    """The mean of a regression (on words and features) and a forest: the best found that is fast."""

    linear: ClassVar[type[JointLinear]] = JointLinear
    forest: ClassVar[type[RandomForest]] = RandomForest
    trees: ClassVar[float] = 0.5  # the forest's weight in the mean
    linear_: JointLinear
    forest_: RandomForest

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def _fit(self, view: View, y: Floats, weight: Floats, helpers: Floats) -> None:
        self.linear_ = self.linear().fit(view, y, weight)
        self.forest_ = self.forest(seed=self.seed).fit(view, y, weight, helpers)

    def logits(self, view: View) -> Floats:
        return np.asarray((1 - self.trees) * self.linear_.logits(view) + self.trees * self.forest_.logits(view))

    def explain(self, text: str) -> dict[str, Floats]:
        return {name: (1 - self.trees) * moved for name, moved in self.linear_.explain(text).items()}
