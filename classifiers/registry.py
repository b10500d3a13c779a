"""Every classifier by name. A new one is a file and a line here; the contract test runs over this dict."""

from collections.abc import Callable
from typing import Any

from classifiers.base import Classifier
from classifiers.boosted import Boosted
from classifiers.embedded import Embedded, EmbeddedForest, Read, ReadForest, ReadLinear, embedded
from classifiers.ensemble import Ensemble
from classifiers.errors import BadArtifact
from classifiers.forest import RandomForest
from classifiers.length import LengthRule
from classifiers.linear import HandLinear, JointLinear, NgramLinear
from classifiers.neighbours import Neighbours
from classifiers.sufficiency import Sufficiency

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

# Classes an artefact may hold, by name: those above and what wraps them. Never read from a file.
PARTS: dict[str, type[Classifier]] = {
    part.__name__: part
    for part in (
        LengthRule, NgramLinear, HandLinear, JointLinear, Boosted, RandomForest, Neighbours, Ensemble, Sufficiency,
        Embedded, EmbeddedForest, Read, ReadForest, ReadLinear,
    )
}  # fmt: skip


def rebuild(state: dict[str, Any]) -> Classifier:
    """The classifier that `Classifier.state` described, parts first."""
    if state.get("class") not in PARTS:
        raise BadArtifact(f"unknown classifier {state.get('class')!r}; this version knows {sorted(PARTS)}")
    learned = {
        key: rebuild(value) if isinstance(value, dict) and "class" in value else value
        for key, value in state["learned"].items()
    }
    return PARTS[state["class"]](**state["params"]).restore(learned)
