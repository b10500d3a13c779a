"""What came back from a tier for one call, kept until the call ends: where the tier reports no usage, its tokens are counted."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from router.request.token_bounds import text_tokens
from router.types import Counter

# Everything that a tier generates has one of these names, whatever else is in an event: text, reasoning, calls of tools.
TEXT = re.compile(rb'"(?:content|text|reasoning|reasoning_content|refusal|name|arguments)"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)"')
SAID = ("content", "reasoning", "reasoning_content", "refusal")
LONG = 20_000  # bytes that are counted in some ten milliseconds; more are counted beside the event loop


class Received:
    """The text of one call's answers. several: there may be more than one answer, whose pieces come mixed."""

    def __init__(self, several: bool = False) -> None:
        self.several = several
        self.raw: list[bytes] = []
        """pieces of the only answer, escaped as JSON"""
        self.read: dict[int, list[str]] = {}
        """index of an answer -> its pieces"""

    def event(self, item: bytes) -> bool:
        """Take what events hold, as they were sent; a few microseconds. Returns whether the tier says something in them."""
        found = [piece for piece in TEXT.findall(item) if piece]
        if not found:
            return False
        if not self.several or not self.mixed(item):
            self.raw += found
        return True

    def mixed(self, item: bytes) -> bool:
        """Take the pieces of several answers, each to its own; False where the events cannot be read."""
        try:
            for line in item.split(b"\n"):
                if line.startswith(b"data:") and line[5:].strip() != b"[DONE]":
                    self.body(json.loads(line[5:]))
        except (ValueError, AttributeError, TypeError):
            return False
        return True

    def body(self, data: Mapping[str, Any]) -> None:
        """Take the answers of a document, or their pieces in an event."""
        for i, choice in enumerate(data.get("choices") or []):
            self.read.setdefault(choice.get("index") or i, []).extend(texts_of(choice))

    @property
    def size(self) -> int:
        """About as many bytes as there are to count."""
        return sum(map(len, self.raw)) + sum(len(piece) for pieces in self.read.values() for piece in pieces)

    def tokens(self, count: Counter) -> int:
        """Tokens of all answers, as a tier's tokenizer counts them."""
        texts = ["".join(pieces) for pieces in self.read.values()] + [unescaped(b"".join(self.raw))]
        return sum(text_tokens(text, count) for text in texts if text)


def texts_of(choice: Mapping[str, Any]) -> Iterator[str]:
    """Every text that an answer, or a piece of one, holds."""
    said = choice.get("message") or choice.get("delta") or {}
    calls = [*(said.get("tool_calls") or []), {"function": said.get("function_call")}]
    functions = [call.get("function") or {} for call in calls]
    found = [
        choice.get("text"),
        *(said.get(name) for name in SAID),
        *(f.get(n) for f in functions for n in ("name", "arguments")),
    ]
    return (text for text in found if isinstance(text, str))


def unescaped(raw: bytes) -> str:
    try:
        return str(json.loads(b'"' + raw + b'"', strict=False))
    except ValueError:  # the tier's JSON is not valid; its bytes are as good to count
        return raw.decode("utf-8", "replace")
