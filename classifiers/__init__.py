"""Guesses, before anything is generated, how likely each tier's answer is to be good.

Names are looked up when they are used: a process that wants one function of text does not import scikit-learn for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from classifiers.choose import Rule, choose, choose_many, explicit
from classifiers.errors import BadArtifact, BadTraining, ClassifierError, NotTrained
from classifiers.text.prompt import prompt_text

if TYPE_CHECKING:
    from classifiers.artifact import Artifact, Guess, load, save
    from classifiers.models.base import Classifier
    from classifiers.models.registry import CLASSIFIERS, DEFAULT
    from classifiers.sufficiency import Sufficiency

HOME_OF = {
    **dict.fromkeys(("Artifact", "Guess", "load", "save"), "artifact"),
    **dict.fromkeys(("CLASSIFIERS", "DEFAULT"), "models.registry"),
    "Classifier": "models.base",
    "Sufficiency": "sufficiency",
}

__all__ = [
    "CLASSIFIERS",
    "DEFAULT",
    "Artifact",
    "BadArtifact",
    "BadTraining",
    "Classifier",
    "ClassifierError",
    "Guess",
    "NotTrained",
    "Rule",
    "Sufficiency",
    "choose",
    "choose_many",
    "explicit",
    "load",
    "prompt_text",
    "save",
]


def __getattr__(name: str) -> Any:
    if name not in HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{HOME_OF[name]}"), name)
    return found
