"""The errors of this package. All are ValueErrors, so callers need not know these classes.

ClassifierError
├── NotTrained      a prediction was asked for before fit
├── BadTraining     nothing can be learned from the rows given to fit
├── MissingExtra    an optional package is not installed
└── BadArtifact     the folder is not an artefact, was changed, or does not fit this version or ladder
"""


class ClassifierError(ValueError):
    """The base of all errors that this package raises."""


class NotTrained(ClassifierError):
    """The classifier was not fitted before a prediction."""


class BadTraining(ClassifierError):
    """Nothing can be learned from the training rows; the message says why."""


class MissingExtra(ClassifierError):
    """A required optional package is not installed; the message says how to install it."""


class BadArtifact(ClassifierError):
    """An artefact must not be used; the message says what was found and what was expected."""
