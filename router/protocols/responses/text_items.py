"""Items of one growing text: messages, refusals, reasoning. Each tells the events of its own life."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router.protocols.responses.events import ADDED, DONE, Item, Tell


@dataclass(frozen=True, slots=True)
class Form:
    """How one kind of text is told. part: its type; index: of the part within its item; says: the field that holds the text."""

    prefix: str
    opens: str
    adds: str
    ends: str
    closes: str
    part: str
    index: str
    says: str = "text"


PART_OPENS = "response.content_part.added"
PART_CLOSES = "response.content_part.done"
TEXT = Form(
    "msg_", PART_OPENS, "response.output_text.delta", "response.output_text.done", PART_CLOSES, "output_text", "content_index"
)
REFUSAL = Form(
    "msg_", PART_OPENS, "response.refusal.delta", "response.refusal.done", PART_CLOSES, "refusal", "content_index", "refusal"
)
SUMMARY = Form(
    "rs_",
    "response.reasoning_summary_part.added",
    "response.reasoning_summary_text.delta",
    "response.reasoning_summary_text.done",
    "response.reasoning_summary_part.done",
    "summary_text",
    "summary_index",
)
REASONING = Form(
    "rs_",
    PART_OPENS,
    "response.reasoning_text.delta",
    "response.reasoning_text.done",
    PART_CLOSES,
    "reasoning_text",
    "content_index",
)


class Texts:
    """A message, or reasoning. hidden: its text is not told. seal: encrypts the text; None: the item has it in no other form."""

    complete = True  # as soon as another item wants to begin
    called = False

    def __init__(self, form: Form, name: str, tell: Tell, hidden: bool = False, seal: Callable[[str], str] | None = None) -> None:
        self.form, self.name, self.tell, self.hidden, self.seal = form, form.prefix + name, tell, hidden, seal
        self.texts: list[str] = []
        self.logprobs: list[Mapping[str, Any]] = []
        self.unsaid: list[str] = []
        self.unsaid_logprobs: list[Mapping[str, Any]] = []
        self.at: dict[str, Any] = {}
        """where the text stands: the item, its place, the part's place; empty: the item has not begun"""

    def add(self, text: str, logprobs: Sequence[Mapping[str, Any]] = ()) -> None:
        self.unsaid.append(text)
        self.unsaid_logprobs += logprobs

    def show(self, place: int) -> None:
        """Tell what was added. place: the item's in the answer."""
        if not self.at:
            self.begin(place)
        text, logprobs = "".join(self.unsaid), self.unsaid_logprobs
        self.unsaid, self.unsaid_logprobs = [], []
        self.texts.append(text)
        self.logprobs += logprobs
        if text and not self.hidden:
            more = {"logprobs": logprobs} if self.form is TEXT else {}
            self.tell(self.form.adds, {**self.at, "delta": text, **more})

    def begin(self, place: int) -> None:
        self.at = {"item_id": self.name, "output_index": place, self.form.index: 0}
        self.tell(ADDED, {"output_index": place, "item": self.item([], "in_progress")})
        if not self.hidden:
            self.tell(self.form.opens, {**self.at, "part": self.part("", [])})

    def close(self, place: int, status: str) -> Item:
        """The whole item."""
        self.show(place)
        text = "".join(self.texts)
        part = self.part(text, self.logprobs)
        if not self.hidden:
            more = {"logprobs": self.logprobs} if self.form is TEXT else {}
            self.tell(self.form.ends, {**self.at, self.form.says: text, **more})
            self.tell(self.form.closes, {**self.at, "part": part})
        item = self.item([] if self.hidden else [part], status)
        if self.seal:
            item["encrypted_content"] = self.seal(text)
        self.tell(DONE, {"output_index": place, "item": item})
        return item

    def part(self, text: str, logprobs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        made = {"type": self.form.part, self.form.says: text}
        return {**made, "annotations": [], "logprobs": list(logprobs)} if self.form is TEXT else made

    def item(self, content: list[dict[str, Any]], status: str) -> Item:
        if self.form in (TEXT, REFUSAL):
            return {"id": self.name, "type": "message", "role": "assistant", "status": status, "content": content}
        made: Item = {"id": self.name, "type": "reasoning", "summary": content if self.form is SUMMARY else []}
        return {**made, "content": content} if self.form is REASONING else made
