"""Values of a body, checked before use. Each function raises BadRequest for a value of the wrong type."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from router.errors import BadRequest

TELLABLE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
"""names that may be repeated to the client in a header"""


def wrong(where: str, expected: str, found: Any) -> BadRequest:
    return BadRequest(f"`{where}` must be {expected}, found {type(found).__name__}", where)


def text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise wrong(where, "a text", value)
    return value


def name(value: Any, where: str) -> str:
    """A text that is not empty."""
    if not text(value, where):
        raise BadRequest(f"`{where}` must not be empty", where)
    return str(value)


def some_text(value: Any, where: str) -> str:
    """Empty where there is none."""
    return "" if value is None else text(value, where)


def flag(value: Any, where: str) -> bool | None:
    if not isinstance(value, bool | None):
        raise wrong(where, "true or false", value)
    return value


def fields(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise wrong(where, "an object", value)
    return value


def some_fields(value: Any, where: str) -> Mapping[str, Any]:
    """Empty where there are none."""
    return {} if value is None else fields(value, where)


def listed(value: Any, where: str) -> Sequence[Any]:
    """Empty where there is none."""
    if not isinstance(value, list | None):
        raise wrong(where, "a list", value)
    return value or ()


def at_least_one(value: Any, where: str, most: int) -> int | None:
    """A whole number from 1 to `most`."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most):
        found = value if isinstance(value, int | float) else type(value).__name__
        raise BadRequest(f"`{where}` must be a whole number from 1 to {most}, found {found}", where)
    return value


def tellable(given: Any) -> str:
    """A name that the client gave, as it may stand in a header."""
    return given if isinstance(given, str) and TELLABLE.fullmatch(given) else "unknown"
