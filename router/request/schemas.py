"""Whether an answer fits the JSON schema that a client asked for, within bounds.

The schema is a stranger's: it must not make us fetch an address, match a pattern for minutes, or expand 2 ** 40 references. What
cannot be judged is left to the tier, which may have enforced the schema by its grammar. What takes longer than LIMIT_S gives no
evidence either way.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from attrs import fields
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from referencing import Registry

LONGEST = 20_000  # characters of a schema; checking one costs some 2 us a character
LONGEST_ANSWER = 200_000  # characters; one keyword alone may take 10 ns for each
LIMIT_S = 0.25  # for the keywords of one check, in seconds of the thread's own time; one keyword takes a few ms at most
UNREAD = ("patternProperties", "unevaluatedProperties", "unevaluatedItems")  # these search in one step that nothing bounds
_spent = threading.local()


class TookTooLong(Exception):
    """The answer cannot be judged within LIMIT_S."""


def timed(keyword: Callable[..., Any]) -> Callable[..., Any]:
    """The same validator of a keyword, within the time of the whole check."""

    def tried(*args: Any) -> Any:
        if time.thread_time() > _spent.until_s:
            raise TookTooLong
        return keyword(*args)

    return tried


def unjudged(*_: Any) -> None:
    """For `pattern`: Python's matcher takes exponential time on a hostile one."""


def comparable(value: Any) -> Any:
    """Equal and of equal hash for what JSON Schema calls equal: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, dict):
        return frozenset((key, comparable(held)) for key, held in value.items())
    if isinstance(value, list):
        return tuple(map(comparable, value))
    return (bool, value) if isinstance(value, bool) else value


# The library compares all pairs of items, and the value with each choice; by hashes, each is looked at once.


def unique_items(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if wanted and isinstance(instance, list) and len(set(map(comparable, instance))) < len(instance):
        yield ValidationError("items are not unique")


def enum(validator: Any, choices: Sequence[Any], instance: Any, schema: Any) -> Iterator[ValidationError]:
    if comparable(instance) not in _spent.choices(id(choices), choices):
        yield ValidationError("not one of the choices")


def const(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if comparable(instance) != comparable(wanted):
        yield ValidationError("not the constant")


class Choices:
    """The choices of each `enum` in comparable form, made once in a check."""

    def __init__(self) -> None:
        self.made: dict[int, set[Any]] = {}

    def __call__(self, place: int, choices: Sequence[Any]) -> set[Any]:
        if place not in self.made:
            self.made[place] = set(map(comparable, choices))
        return self.made[place]


OURS = {"pattern": unjudged, "uniqueItems": unique_items, "enum": enum, "const": const}
KEYWORDS = {name: timed(keyword) for name, keyword in (Draft202012Validator.VALIDATORS | OURS).items()}
Bounded = extend(Draft202012Validator, KEYWORDS)


def evolve(self: Any, **changes: Any) -> Any:
    """Ours for each part of the schema: the library's own would take another validator where a part names one in `$schema`."""
    kept = {field.alias: getattr(self, field.name) for field in fields(Bounded) if field.init}
    return Bounded(**(kept | changes))


Bounded.evolve = evolve
META = Bounded(Draft202012Validator.META_SCHEMA)


def within_time(validator: Any, value: Any) -> bool | None:
    """Whether the value is valid; None if that took too long or the library failed on it."""
    _spent.until_s, _spent.choices = time.thread_time() + LIMIT_S, Choices()
    try:
        return bool(validator.is_valid(value))
    except Exception:  # noqa: BLE001 - the library raises many kinds for a schema that it cannot follow
        return None


@lru_cache(maxsize=256)
def validator(schema: str) -> Any:
    """None: the text is not a schema, or is one that we do not judge."""
    if len(schema) > LONGEST or any(f'"{name}":' in schema for name in UNREAD):
        return None
    read = json.loads(schema)
    return Bounded(read, registry=Registry()) if within_time(META, read) else None  # an empty registry fetches nothing


def judge(value: Any, schema: Any) -> bool | None:
    """Whether the value fits the schema, which may be any JSON; True if we do not judge it, None if judging took too long."""
    found = validator(json.dumps(schema, sort_keys=True)) if isinstance(schema, dict) else None
    return True if found is None else within_time(found, value)
