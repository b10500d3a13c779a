"""A chat's answer as a response's items. One item is open at a time; what comes for others waits until it is complete.

A stream and a whole answer go the same way: pieces of a chat come in, in any order and interleaved, and items are told as events.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from router.protocols.edge import Seals
from router.protocols.responses.call_items import Call
from router.protocols.responses.events import Item, Tell
from router.protocols.responses.text_items import REASONING, REFUSAL, SUMMARY, TEXT, Form, Texts
from router.protocols.responses.tools import Tools

Logprobs = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Shown:
    """How a request wants its answer. id: of the request."""

    id: str
    tools: Tools
    seals: Seals
    reasoning: Literal["summary", "text", "hidden"] = "summary"
    encrypted: bool = False
    """reasoning comes encrypted too"""
    logprobs: bool = False


@dataclass(slots=True)
class Said:
    """The answer in a chat's terms."""

    thoughts: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)


class Output:
    """Items as they form."""

    def __init__(self, shown: Shown, tell: Tell) -> None:
        self.shown, self.tell = shown, tell
        self.tier = ""
        """that answers, as far as it is known"""
        self.items: list[Item] = []
        """those that are closed"""
        self.open: Texts | Call | None = None
        self.behind: deque[Texts | Call] = deque()
        """items that wait for a call whose arguments are not complete"""
        self.calls: dict[int, Call] = {}
        self.space: list[tuple[str, Logprobs]] = []
        """white space that may yet turn out to be the beginning of a text"""
        self.made = 0
        self.spoken = False
        """a message or a call has begun"""
        self.said = Said()

    # -- what comes in -----------------------------------------------------------------------------------------------------

    def take(self, said: Mapping[str, Any], logprobs: Logprobs = ()) -> None:
        """A message, or a piece of one."""
        if thought := said.get("reasoning") or said.get("reasoning_content"):
            self.think(thought)
        if text := said.get("content"):
            self.speak(text, logprobs if self.shown.logprobs else ())
        if refusal := said.get("refusal"):
            self.said.refusals.append(refusal)
            self.spoken = True
            self.put(REFUSAL, refusal)
        for i, piece in enumerate(said.get("tool_calls") or ()):
            self.call(piece, piece.get("index", i))

    def think(self, thought: str) -> None:
        self.said.thoughts.append(thought)
        if self.shown.reasoning != "hidden" or self.shown.encrypted:
            self.put(REASONING if self.shown.reasoning == "text" else SUMMARY, thought)

    def speak(self, text: str, logprobs: Logprobs) -> None:
        """White space opens no message: models put it between reasoning and a call."""
        self.said.texts.append(text)
        last = self.last()
        if not (isinstance(last, Texts) and last.form is TEXT) and text.isspace():
            self.space.append((text, logprobs))
            return
        self.spoken = True
        before, self.space = self.space, []
        for space, its_logprobs in before:
            self.put(TEXT, space, its_logprobs)
        self.put(TEXT, text, logprobs)

    def call(self, piece: Mapping[str, Any], index: int) -> None:
        """What comes for a call that is closed is dropped: its arguments were complete, and would no longer be."""
        self.spoken = True
        call = self.calls.get(index)
        if call is None:
            call = self.calls[index] = Call(self.name(), self.tell, self.shown.tools.tool, f"call_{self.shown.id}_{index}")
            self.enter(call)
        if call is not self.open and call not in self.behind:
            return
        call.add(piece)
        if call is self.open:
            call.show(len(self.items))
            self.advance()

    def put(self, form: Form, text: str, logprobs: Logprobs = ()) -> None:
        """Add to the last item if it has this form, else to a new one."""
        last = self.last()
        if not (isinstance(last, Texts) and last.form is form):
            last = self.texts(form)
            self.enter(last)
        last.add(text, logprobs)
        if last is self.open:
            last.show(len(self.items))

    def texts(self, form: Form) -> Texts:
        if form in (TEXT, REFUSAL):
            return Texts(form, self.name(), self.tell)
        hidden = self.shown.reasoning == "hidden"
        return Texts(form, self.name(), self.tell, hidden, self.sealed if self.shown.encrypted else None)

    def sealed(self, thought: str) -> str:
        return self.shown.seals.sealed(thought, self.tier)

    def name(self) -> str:
        """Of an item: the request's, and a number."""
        self.made += 1
        return f"{self.shown.id}{self.made:04x}"

    # -- the line of items -------------------------------------------------------------------------------------------------

    def last(self) -> Texts | Call | None:
        return self.behind[-1] if self.behind else self.open

    def enter(self, item: Texts | Call) -> None:
        self.behind.append(item)
        self.advance()

    def advance(self) -> None:
        """Open what waits, as far as the items before it are complete."""
        while self.behind and (self.open is None or self.open.complete):
            self.close("completed")
            self.open = self.behind.popleft()
            self.open.show(len(self.items))

    def close(self, status: str) -> None:
        if self.open is not None:
            self.items.append(self.open.close(len(self.items), status))
            self.open = None

    def finish(self, cut: bool) -> None:
        """The tier is done. cut: it had more to say, so that the text or the calls it was at are not whole."""
        while self.open is not None:
            whole = self.open.complete and (self.open.called or self.behind)
            self.close("completed" if whole or not cut else "incomplete")
            if self.behind:
                self.open = self.behind.popleft()
                self.open.show(len(self.items))

    def end(self, cut: bool) -> None:
        """Close all. An answer of nothing, or of white space, is a message: clients look for one."""
        self.finish(cut)
        if not self.spoken and not cut:
            self.put(TEXT, "".join(space for space, _ in self.space), [entry for _, those in self.space for entry in those])
            self.finish(cut)

    # -- what it came to ---------------------------------------------------------------------------------------------------

    def as_chat(self) -> dict[str, Any]:
        """The answer as an assistant's message."""
        calls = [call.as_chat() for call in self.calls.values()]
        text, thought = "".join((*self.said.texts, *self.said.refusals)), "".join(self.said.thoughts)
        message: dict[str, Any] = {"role": "assistant", "content": text or (None if calls else "")}
        if calls:
            message["tool_calls"] = calls
        if thought:
            message["reasoning"] = thought
        return {**message, "reasoning_tier": self.tier} if thought and self.tier else message
