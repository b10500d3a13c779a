"""The reasoning of a model beside its answer: in a field of its own, or between marks at the start of the text.

One reader for whole messages and one for streams, whose pieces may cut a mark anywhere; both find the same. Where the chat
template writes the first mark, a text begins within the thought: that is known of the tier (`opened`).
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

FIELDS = ("reasoning", "reasoning_content")
"""of a message: vLLM's, and that of other servers"""
OPENS = "<think>"
CLOSES = "</think>"
LEAD = 64  # characters of white space that may stand before the first mark


class Spoken(NamedTuple):
    """What a message says, or a piece of one."""

    thought: str = ""
    text: str = ""
    """the answer alone"""


class Splitter:
    """Takes a text in pieces and gives its thought and its answer; what may be the beginning of a mark waits for the next piece.

    White space between the closing mark and the answer belongs to neither.
    """

    def __init__(self, opened: bool = False) -> None:
        self.opened = opened
        self.place: Literal["start", "thought", "gap", "answer"] = "start"
        self.held = ""
        self.marked = opened
        """the text has a mark, or begins within the thought"""

    def feed(self, piece: str) -> Spoken:
        self.held += piece
        if self.place == "start":
            self.begin()
        thought = self.take_thought() if self.place == "thought" else ""
        return Spoken(thought, self.take_answer())

    def end(self) -> Spoken:
        """What still waited for more. A thought that nothing closes was cut."""
        rest, self.held = self.held, ""
        cut = self.place == "thought" or (self.place == "start" and self.opened)
        return Spoken(rest, "") if cut else Spoken("", "" if self.place == "gap" else rest)

    def begin(self) -> None:
        """Find out whether the text begins with a mark, as soon as that can be told."""
        rest = self.held[: LEAD + len(OPENS) + 1].lstrip()
        late = len(self.held) - len(self.held.lstrip()) > LEAD
        if rest.startswith(OPENS) and not late:
            self.place, self.held, self.marked = "thought", self.held.lstrip()[len(OPENS) :], True
        elif late or not OPENS.startswith(rest):
            self.place = "thought" if self.opened else "answer"

    def take_thought(self) -> str:
        thought, mark, after = self.held.partition(CLOSES)
        if mark:
            self.place, self.held = "gap", after
            return thought
        waits = next((n for n in range(len(CLOSES) - 1, 0, -1) if self.held.endswith(CLOSES[:n])), 0)
        kept = len(self.held) - waits
        thought, self.held = self.held[:kept], self.held[kept:]
        return thought

    def take_answer(self) -> str:
        if self.place == "gap" and (rest := self.held.lstrip()):
            self.place, self.held = "answer", rest
        if self.place != "answer":
            return ""
        text, self.held = self.held, ""
        return text


def split(text: str, opened: bool = False) -> Spoken:
    """A whole text's thought and answer."""
    splitter = Splitter(opened)
    first, rest = splitter.feed(text), splitter.end()
    return Spoken(first.thought + rest.thought, first.text + rest.text)


def in_field(said: Mapping[str, Any]) -> str:
    """The thought that a message, or a piece of one, has in a field of its own; empty: it has none."""
    return next((text for name in FIELDS if isinstance(text := said.get(name), str) and text), "")


def spoken(message: Mapping[str, Any], opened: bool = False) -> Spoken:
    """What a whole message says. Content that is no text counts as none."""
    content = message.get("content")
    text = content if isinstance(content, str) else ""
    thought = in_field(message)
    return Spoken(thought, text) if thought else split(text, opened)


def apart(message: Mapping[str, Any], opened: bool = False) -> dict[str, Any]:
    """The message with a thought that stands in its content in a field of its own."""
    said = spoken(message, opened)
    if not said.thought or in_field(message):
        return dict(message)
    return {**message, "content": said.text or None, "reasoning": said.thought}


def named(said: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """A message, or a piece of one, whose thought stands in these fields and no other; one that has no such field stays."""
    if not any(name in said for name in FIELDS):
        return dict(said)
    rest = {name: value for name, value in said.items() if name not in FIELDS}
    return rest | dict.fromkeys(names, in_field(said) or next(said[name] for name in FIELDS if name in said))


class DeltaReader:
    """Reads the pieces of one streamed message."""

    def __init__(self, opened: bool = False) -> None:
        self.splitter = Splitter(opened)
        self.has_field = False
        """the tier itself keeps the thought apart: the content is the answer as it is"""

    def read(self, delta: Mapping[str, Any], last: bool = False) -> Spoken:
        """last: nothing more comes, so nothing waits any longer."""
        content, thought = delta.get("content"), in_field(delta)
        text = content if isinstance(content, str) else ""
        if self.has_field:
            return Spoken(thought, text)
        if thought:
            self.has_field = True
            return Spoken(thought, self.splitter.end().text + text)
        said = self.splitter.feed(text)
        return joined(said, self.splitter.end()) if last else said

    def end(self) -> Spoken:
        return Spoken() if self.has_field else self.splitter.end()


def joined(first: Spoken, second: Spoken) -> Spoken:
    return Spoken(first.thought + second.thought, first.text + second.text)


def separated(delta: Mapping[str, Any], said: Spoken) -> dict[str, Any]:
    """The piece with its thought in a field of its own. said: what a DeltaReader read of it."""
    if said.text == (delta.get("content") or "") and (not said.thought or in_field(delta)):
        return dict(delta)
    rest: dict[str, Any] = {name: value for name, value in delta.items() if name != "content"}
    if said.thought and not in_field(delta):
        rest["reasoning"] = said.thought
    return rest | ({"content": said.text} if said.text else {})
