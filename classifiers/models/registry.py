"""Every classifier by name. A new one needs a file in this folder and a line here; the contract test runs over this dict."""

from collections.abc import Callable

from classifiers.models.base import Classifier
from classifiers.models.boosted import Boosted
from classifiers.models.embedded import embedded
from classifiers.models.ensemble import Ensemble
from classifiers.models.forest import RandomForest
from classifiers.models.length import LengthRule
from classifiers.models.linear import HandLinear, JointLinear, NgramLinear
from classifiers.models.neighbours import Neighbours

CLASSIFIERS: dict[str, Callable[[], Classifier]] = {
    "length": LengthRule,
    "ngrams": NgramLinear,
    "hand": HandLinear,
    "linear": JointLinear,
    "boosted": Boosted,
    "forest": RandomForest,
    "neighbours": Neighbours,
    "ensemble": Ensemble,
    "embed": embedded,
}
DEFAULT = "ensemble"
