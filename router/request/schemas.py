"""Whether an answer is of the JSON schema that a client asked for, judged within bounds.

The schema comes from outside: it must not make us fetch an address, try a pattern for minutes, or count to 2 ** 40 by
references. What cannot be judged cheaply is left to the tier, whose grammar has enforced it or has not.
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

LONGEST = 20_000  # characters of a schema; reading one is checked against the language of schemas, some 2 us a character
MOST_STEPS = 50_000  # keywords tried on one answer; half a second at most
_spent = threading.local()


class TooMuch(Exception):
    """The answer cannot be judged in the steps that it may take."""


def counted(keyword: Callable[..., Any]) -> Callable[..., Any]:
    def tried(*given: Any) -> Any:
        _spent.steps += 1
        if _spent.steps > MOST_STEPS:
            raise TooMuch
        return keyword(*given)

    return tried


def unjudged(*_: Any) -> None:
    """`pattern`: Python's matcher takes exponential time on a hostile one."""


KEYWORDS = {name: counted(keyword) for name, keyword in Draft202012Validator.VALIDATORS.items()} | {"pattern": unjudged}
Bounded = extend(Draft202012Validator, KEYWORDS)


@lru_cache(maxsize=256)
def validator(schema: str) -> Any:
    """None for a schema that is none, or that is not for us to judge: the tier has."""
    if len(schema) > LONGEST or '"patternProperties":' in schema:
        return None
    read = json.loads(schema)
    try:
        Draft202012Validator.check_schema(read)
    except (SchemaError, RecursionError):
        return None
    return Bounded(read, registry=Registry())  # an empty registry fetches nothing


def fits(value: Any, schema: Any) -> bool:
    """Whether the value is of the schema; True where that cannot be judged. schema: any JSON."""
    found = validator(json.dumps(schema, sort_keys=True)) if isinstance(schema, dict) else None
    _spent.steps = 0
    try:
        return found is None or bool(found.is_valid(value))
    except (TooMuch, RecursionError, Unresolvable):
        return True
