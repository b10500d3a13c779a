"""What can be wrong with a classifier or its artefact; all are ValueError, so plain callers can catch that.

ClassifierError
├── NotTrained      asked for a prediction before fit
├── BadTraining     the rows given to fit cannot teach anything
├── MissingExtra    an optional package is not installed
└── BadArtifact     the folder is not one of ours, was changed, or was made for something else
"""


class ClassifierError(ValueError):
    """The base of all that classifiers raise on purpose."""


class NotTrained(ClassifierError):
    """A prediction was asked of a classifier that was never fitted."""


class BadTraining(ClassifierError):
    """The rows given cannot teach a classifier; the message says why."""


class MissingExtra(ClassifierError):
    """An optional package is asked for and not installed; the message says how to install it."""


class BadArtifact(ClassifierError):
    """An artefact that must not be used; the message gives what was found and what was expected."""
