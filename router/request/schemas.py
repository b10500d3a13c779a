"""Whether an answer fits the JSON schema that a client asked for, within bounds.

The schema is a stranger's: it must not make us fetch an address, match a pattern for minutes, or expand 2 ** 40 references. What
cannot be judged cheaply passes: it is left to the tier, which may have enforced the schema by its grammar.
"""

import json
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

LONGEST = 20_000  # characters of a schema; checking one costs some 2 us a character
MOST_STEPS = 50_000  # keywords tried on one answer; half a second at most
_spent = threading.local()


class TooManySteps(Exception):
    """The answer cannot be judged within MOST_STEPS."""


def counted(keyword: Callable[..., Any]) -> Callable[..., Any]:
    """The same validator of a keyword, counting its calls."""

    def tried(*args: Any) -> Any:
        _spent.steps += 1
        if _spent.steps > MOST_STEPS:
            raise TooManySteps
        return keyword(*args)

    return tried


def unjudged(*_: Any) -> None:
    """For `pattern`: Python's matcher takes exponential time on a hostile one."""


KEYWORDS = {name: counted(keyword) for name, keyword in Draft202012Validator.VALIDATORS.items()} | {"pattern": unjudged}
Bounded = extend(Draft202012Validator, KEYWORDS)


@lru_cache(maxsize=256)
def validator(schema: str) -> Any:
    """None: the text is not a schema, or is one that we do not judge."""
    if len(schema) > LONGEST or '"patternProperties":' in schema:
        return None
    read = json.loads(schema)
    try:
        Draft202012Validator.check_schema(read)
    except (SchemaError, RecursionError):
        return None
    return Bounded(read, registry=Registry())  # an empty registry fetches nothing


def fits(value: Any, schema: Any) -> bool:
    """Whether the value fits the schema, which may be any JSON; True if that cannot be judged."""
    found = validator(json.dumps(schema, sort_keys=True)) if isinstance(schema, dict) else None
    _spent.steps = 0
    try:
        return found is None or bool(found.is_valid(value))
    except (TooManySteps, RecursionError, Unresolvable):
        return True
