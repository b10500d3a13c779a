"""Runs the operator's hook `learning.redact` on whole conversations before anything of them is kept."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from router.entry_points import load_function
from router.errors import BadConfig
from router.request.json_text import written

Message = Mapping[str, Any]
PROBE: tuple[Message, ...] = ({"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello."})
FAILURES = 3  # in a row, after which the hook counts as broken until it works again
LONGEST = 128  # characters of `completions.redaction`


class RedactionFailed(Exception):
    """The hook raised, or returned what is no conversation: nothing may be kept."""


class Redaction:
    """The hook, and how it did. Used by one thread; others may read `broken` and `failures`."""

    def __init__(self, name: str | None) -> None:
        """name: `module:function`; None: conversations are kept as they are. Raises BadConfig where it cannot be loaded."""
        self.hook: Callable[[list[Any]], Any] | None = load_function(name, "learning.redact", BadConfig) if name else None
        self.name = named(name, self.hook) if name else ""
        """hook and version, as rows keep it"""
        self.in_a_row = 0
        self.failures = 0

    @property
    def broken(self) -> bool:
        """Whether it failed so often in a row that nothing is kept until it works again."""
        return self.in_a_row >= FAILURES

    def probe(self) -> None:
        """Try it on a greeting: a hook that fails even there is known to be broken before the first request."""
        try:
            self.whole(PROBE)
        except RedactionFailed:
            self.in_a_row = FAILURES

    def whole(self, messages: Sequence[Message]) -> list[Message] | None:
        """The conversation as it may be kept, with as many messages; None: nothing of it. Raises RedactionFailed."""
        if self.hook is None:
            return list(messages)
        try:
            found = checked(self.hook(json.loads(written(list(messages)))), len(messages))
        except Exception as error:  # the hook is not ours, and may raise anything
            self.in_a_row += 1
            self.failures += 1
            raise RedactionFailed(type(error).__name__) from error
        self.in_a_row = 0
        return found


def checked(found: Any, count: int) -> list[Message] | None:
    """Raises TypeError, ValueError where a hook returned no conversation of so many messages."""
    if found is None:
        return None
    if not isinstance(found, list) or not all(isinstance(message, dict) for message in found):
        raise TypeError("expected a list of messages, or None")
    if len(found) != count:
        raise ValueError(f"expected {count} messages, found {len(found)}")
    written(found)
    return found


def named(name: str, hook: Any) -> str:
    """The hook's name with the version that it, or its module, states as `__version__`."""
    stated = getattr(hook, "__version__", None) or getattr(hook, "__globals__", {}).get("__version__")
    return (f"{name}@{stated}" if stated else name)[:LONGEST]
