"""Guesses how likely each tier's answer is to be good: from the request alone, and again from answers once there are some.

This package imports no other package of the project. It must not know configuration, requests' fields, Ray, HTTP or vLLM.
Its rooms, top down, are `fast`, `replies`, `models`, `text`, then `pretrained` and `parts`; files beside them join the rooms.
Names that need scikit-learn are imported when they are used, so that a process that needs only a function of text stays light.
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

LAZY = {  # name: its module
    **dict.fromkeys(("Artifact", "Guess", "load", "save"), "artifact"),
    **dict.fromkeys(("CLASSIFIERS", "DEFAULT"), "models.registry"),
    "Classifier": "models.base",
    "Sufficiency": "sufficiency",
}

__all__ = ["BadArtifact", "BadTraining", "ClassifierError", "NotTrained"]
__all__ += ["Rule", "choose", "choose_many", "explicit", "prompt_text"]
__all__ += ["CLASSIFIERS", "DEFAULT", "Artifact", "Classifier", "Guess", "Sufficiency", "load", "save"]  # imported when used


def __getattr__(name: str) -> Any:
    if name not in LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{LAZY[name]}"), name)
    return found
