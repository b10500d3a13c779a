"""Guesses, before anything is generated, how likely each tier's answer is to be good."""

from classifiers.artifact import Artifact, Guess, load, save
from classifiers.base import Classifier
from classifiers.choose import Rule, choose, choose_many, explicit
from classifiers.errors import BadArtifact, BadTraining, ClassifierError, NotTrained
from classifiers.registry import CLASSIFIERS, DEFAULT
from classifiers.sufficiency import Sufficiency
from classifiers.text import prompt_text

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
