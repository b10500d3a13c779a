"""What came back from a tier for one call, kept until the call ends: where the tier reports no usage, its tokens are counted.

So are those of a thought whose number the tier does not report.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from router.request.thoughts import CLOSES, Splitter, in_field, split_whole
from router.request.token_bounds import text_tokens
from router.types import Counter

# Everything that a tier generates has one of these names, whatever else is in an event: text, reasoning, calls of tools.
STRING = rb'"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)"'
TEXT = re.compile(rb'"(?:content|text|refusal|name|arguments)' + STRING)
THOUGHTS = (re.compile(rb'"reasoning' + STRING), re.compile(rb'"reasoning_content' + STRING))
"""some servers send the same thought under both names"""
SAID = ("content", "reasoning", "reasoning_content", "refusal")
LONG = 20_000  # bytes that are counted in some ten milliseconds; more are counted beside the event loop


class Received:
    """The text of one call's answers. several: there may be more than one answer, whose pieces come mixed. chat: texts may begin
    with a thought.
    """

    def __init__(self, several: bool = False, chat: bool = True) -> None:
        self.several, self.chat = several, chat
        self.raw: list[bytes] = []
        """pieces of the only answer, escaped as JSON, without a thought in a field of its own"""
        self.raw_thought: list[bytes] = []
        """pieces of that thought"""
        self.read: dict[int, list[str]] = {}
        """index of an answer -> its pieces"""
        self.thoughts: dict[int, list[str]] = {}
        """index of an answer -> the pieces of its thought in a field of its own"""
        self.answered = False
        """something of an answer has come, beside thoughts"""
        self.lead = Splitter()
        """reads a text until the answer begins"""

    def event(self, item: bytes) -> bool:
        """Take what events hold, as they were sent; a few microseconds. Returns whether the tier says something in them."""
        found = [piece for piece in TEXT.findall(item) if piece]
        thought = thought_in(item) if b'"reasoning' in item else []
        if not found and not thought:
            return False
        if found and not self.answered:
            self.answered = self.answers(found)
        if not self.several or not self.mixed(item):
            self.raw += found
            self.raw_thought += thought
        return True

    def answers(self, pieces: list[bytes]) -> bool:
        """Whether these begin the answer: they do unless the text begins with a thought."""
        if not self.chat or self.several or self.raw_thought:
            return True
        return bool(self.lead.feed(unescaped(b"".join(pieces))).text)

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
            index = choice.get("index") or i
            self.read.setdefault(index, []).extend(texts_beside_thought(choice))
            if thought := in_field(said_in(choice)):
                self.thoughts.setdefault(index, []).append(thought)

    @property
    def size(self) -> int:
        """About as many bytes as there are to count."""
        pieces = [piece for found in (self.read, self.thoughts) for pieces in found.values() for piece in pieces]
        return sum(map(len, self.raw)) + sum(map(len, self.raw_thought)) + sum(map(len, pieces))

    def tokens(self, count: Counter) -> int:
        """Tokens of all answers, thoughts included, as a tier's tokenizer counts them."""
        return sum(text_tokens(text, count) for text in (*self.texts(), *self.own_thoughts()))

    def texts(self) -> list[str]:
        """Of each answer what is in no field for thoughts."""
        return [text for text in (*map("".join, self.read.values()), unescaped(b"".join(self.raw))) if text]

    def own_thoughts(self) -> list[str]:
        """The thoughts in fields of their own."""
        return [text for text in (*map("".join, self.thoughts.values()), unescaped(b"".join(self.raw_thought))) if text]

    @property
    def thinks(self) -> bool:
        """Whether there may be a thought: a cheap look."""
        if self.raw_thought or self.thoughts:
            return True
        marked = b"think" in b"".join(self.raw) or any(CLOSES[2:] in "".join(pieces) for pieces in self.read.values())
        return self.chat and marked

    def thought_tokens(self, count: Counter) -> int:
        """Tokens of all thoughts, wherever they stand, as a tier's tokenizer counts them. Marks belong to neither side."""
        thoughts = self.own_thoughts() or ([split_whole(text).thought for text in self.texts()] if self.chat else [])
        return sum(text_tokens(text, count) for text in thoughts if text)


def thought_in(item: bytes) -> list[bytes]:
    """Pieces of a thought in its own field, escaped as JSON."""
    found = next((found for name in THOUGHTS if (found := name.findall(item))), [])
    return [piece for piece in found if piece]


def said_in(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    said: Mapping[str, Any] = choice.get("message") or choice.get("delta") or {}
    return said


def texts_of(choice: Mapping[str, Any]) -> Iterator[str]:
    """Every text that an answer, or a piece of one, holds."""
    if thought := in_field(said_in(choice)):
        yield thought
    yield from texts_beside_thought(choice)


def texts_beside_thought(choice: Mapping[str, Any]) -> Iterator[str]:
    said = said_in(choice)
    calls = [*(said.get("tool_calls") or []), {"function": said.get("function_call")}]
    functions = [call.get("function") or {} for call in calls]
    found = [
        choice.get("text"),
        *(said.get(name) for name in ("content", "refusal")),
        *(f.get(n) for f in functions for n in ("name", "arguments")),
    ]
    return (text for text in found if isinstance(text, str))


def unescaped(raw: bytes) -> str:
    try:
        return str(json.loads(b'"' + raw + b'"', strict=False))
    except ValueError:  # the tier's JSON is not valid; its bytes are as good to count
        return raw.decode("utf-8", "replace")
