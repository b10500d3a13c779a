"""Items that a request names by their ids alone, because the server that made them may have kept them.

The AI SDK does so unless it is told `store: false`. An item's id has the id of its response in it, so nothing more is kept.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from router.protocols.responses.reading import PREFIX

OWNED = re.compile(r"[a-z]+_([0-9a-f]{32})[0-9a-f]{4,}")
MOST_OWNERS = 128  # each is read whole


def owners(body: Any) -> list[str]:
    """Ids of the responses that the items come from, each once."""
    found = (OWNED.fullmatch(name) for name in map(named, items(body)) if name)
    return list(dict.fromkeys(PREFIX + match[1] for match in found if match))[:MOST_OWNERS]


def with_items(body: Mapping[str, Any], kept: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """The body with the items in place of their names. kept: responses by their ids. The reader refuses names that stay."""
    known = {item["id"]: item for response in kept.values() for item in response["output"]}
    return {**body, "input": [known.get(named(item) or "", item) for item in items(body)]} if known else body


def items(body: Any) -> Iterator[Any]:
    given = body.get("input") if isinstance(body, Mapping) else None
    yield from given if isinstance(given, list) else ()


def named(item: Any) -> str | None:
    """The id in an item that is nothing else; a reference may leave out its type."""
    if not isinstance(item, Mapping) or item.get("type") not in (None, "item_reference") or "role" in item:
        return None
    name = item.get("id")
    return name if isinstance(name, str) else None
