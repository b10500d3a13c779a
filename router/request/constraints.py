"""Bounds on what a client may demand of an answer's form: schemas, choices, expressions, grammars.

An engine turns each into an automaton before it generates a token. That takes a tenth of a second for 10,000 choices, but over
25 s for 200,000 (xgrammar, the pocket tokenizer, 2026-11-30), and later requests wait behind it, even after the client has left.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from router.errors import BadRequest

MOST_CHARS = 120_000  # of one constraint, as JSON; OpenAI's bound for a schema's names and values
MOST_CHOICES = 10_000  # values in all `enum` and `choice` of one constraint
LEAST_CHARS = 2  # of one choice, with its comma
NAMED = ("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar")
"""fields of vLLM, the later ones of older versions"""


def check(body: Mapping[str, Any]) -> None:
    """Raises BadRequest for a constraint that would keep a tier's engine from its other work."""
    for where, constraint in constraints(body):
        chars = len(json.dumps(constraint))
        if chars > MOST_CHARS:
            raise BadRequest(f"`{where}` has {chars:,} characters; send at most {MOST_CHARS:,}", where)
        found = choices_in(constraint) if chars > LEAST_CHARS * MOST_CHOICES else 0
        if found > MOST_CHOICES:
            raise BadRequest(f"`{where}` has {found:,} choices; send at most {MOST_CHOICES:,}", where)


def constraints(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each field that binds an answer's form, and its value. Tools bind it where one of them must be called."""
    if schema := (body.get("response_format") or {}).get("json_schema"):
        yield "response_format", schema
    yield from ((name, body[name]) for name in NAMED if body.get(name))
    if body.get("tools") and body.get("tool_choice") not in (None, "auto", "none"):
        yield "tools", body["tools"]


def choices_in(value: Any) -> int:
    """How many values all lists named `enum` or `choice` hold, and a list that is itself the constraint."""
    found, level = len(value) if isinstance(value, list) else 0, [value]
    while level:
        part = level.pop()
        if isinstance(part, dict):
            found += sum(len(part[name]) for name in ("enum", "choice") if isinstance(part.get(name), list))
            level.extend(part.values())
        elif isinstance(part, list):
            level.extend(held for held in part if isinstance(held, dict | list))
    return found
