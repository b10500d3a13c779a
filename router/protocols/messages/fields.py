"""A body's values, each checked before it is used. All raise BadRequest and no other error."""

import json
import re
from collections.abc import Mapping
from typing import Any

from router.errors import BadRequest

HEADER_SAFE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
MOST_TOLD = 30


class Told:
    """Names of fields and tools that do nothing here, each once, in the order in which they were met.

    They go into a header, so a name that does not fit in there is not told.
    """

    def __init__(self) -> None:
        self.met: dict[str, None] = {}

    def add(self, name: str) -> None:
        if len(self.met) < MOST_TOLD and HEADER_SAFE.fullmatch(name):
            self.met[name] = None

    def caching(self, block: Mapping[str, Any]) -> None:
        """Of a block, a tool or the body: vLLM caches prefixes without being told where they end."""
        if block.get("cache_control"):
            self.add("cache_control")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.met)


def wrong(where: str, expected: str, found: Any) -> BadRequest:
    return BadRequest(f"`{where}` must be {expected}, found {named(found)}", where)


def named(value: Any) -> str:
    """A value as a message shows it: short ones themselves, of others the type."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return f"{value[:40]!a}" if value else "an empty text"
    if isinstance(value, int | float) and abs(value) < 1e12:
        return f"{value}"
    return {dict: "an object", list: "a list", int: "a huge number", float: "a huge number"}.get(
        type(value), type(value).__name__
    )


def text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise wrong(where, "a text", value)
    return value


def name(value: Any, where: str) -> str:
    """A text that is not empty."""
    if not text(value, where):
        raise wrong(where, "a text that is not empty", value)
    return str(value)


def flag(value: Any, where: str) -> bool:
    """Absent is false."""
    if not isinstance(value, bool | None):
        raise wrong(where, "true or false", value)
    return bool(value)


def mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong(where, "an object", value)
    return value


def optional(value: Any, where: str) -> dict[str, Any]:
    """An object; absent is empty."""
    return {} if value is None else mapping(value, where)


def objects(value: Any, where: str) -> list[dict[str, Any]]:
    """A list of objects; absent is empty."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise wrong(where, "a list", value)
    return [mapping(item, f"{where}[{i}]") for i, item in enumerate(value)]


def whole(value: Any, where: str, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise wrong(where, f"a whole number of at least {least}", value)
    return value


def share(value: Any, where: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise wrong(where, "a number from 0 to 1", value)
    return value


def as_json(value: Any, where: str) -> str:
    """An object as JSON text, as a model wrote it: with spaces, and its characters unescaped."""
    try:
        return json.dumps(mapping(value, where), ensure_ascii=False, allow_nan=False)
    except (RecursionError, ValueError):
        raise BadRequest(f"`{where}` nests too deeply, or holds what JSON has not; send a flatter object", where) from None
