"""Errors of `stepdown fit`."""

from router.errors.base import BadInput


class DoesNotFit(BadInput):
    """A model, or any model, does not fit on a machine; the message has the numbers."""


class UnknownShape(BadInput):
    """A model's files do not say how large it is, or nobody knows where they are."""
