"""Large texts of a request behind handles: the planner sees a manifest, only the workers read the text.

A handle is `c1` for a whole block, `c1.3` for its third part, `c1.2-5` for four of them. A handle resolves inside the
blocks of its own request and nowhere else.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from classifiers.parts.cut import Cut, cut
from classifiers.text.prompt import content_text
from router.delegate.sanitise import neutralise
from router.types import Counter

REF = re.compile(r"(c[1-9][0-9]?)(?:\.([1-9][0-9]{0,2})(?:-([1-9][0-9]{0,2}))?)?")
LISTED_PARTS = 16  # parts whose first words the manifest shows
FIRST_WORDS = 48  # characters
SYSTEM = ("system", "developer")


@dataclass(frozen=True, slots=True)
class Block:
    """One text behind a handle."""

    id: str
    message: int
    """index of its message"""
    piece: int | None
    """index in the message's list of content; None where the content is one text"""
    text: str
    tokens: int
    cut: Cut

    def part(self, n: int) -> str:
        """Its n-th part, from 1, without label."""
        return self.cut.parts[n - 1].text

    def slice(self, first: int | None, last: int | None) -> str:
        """The parts from first to last with their labels; the whole text without `first`."""
        if first is None:
            return self.text
        chosen = self.cut.parts[first - 1 : last or first]
        return "\n".join(f"{p.label} {p.text}".strip() if short(p.label) else f"{p.label}\n{p.text}".strip() for p in chosen)


def short(label: str) -> bool:
    """Whether the label stands on the line of its text: `1.` does, a heading does not."""
    return len(label.split()) <= 1 and not label.startswith(("#", "<", "---"))


@dataclass(frozen=True, slots=True)
class Sheet:
    """A chat with its large texts put behind handles."""

    messages: tuple[Mapping[str, Any], ...]
    """as they were sent"""
    blocks: Mapping[str, Block]

    @property
    def system(self) -> tuple[Mapping[str, Any], ...]:
        return tuple(m for m in self.messages if m.get("role") in SYSTEM)

    @property
    def turns(self) -> int:
        """Messages that are no system prompt."""
        return len(self.messages) - len(self.system)

    def beside(self) -> str:
        """What the last message says outside its blocks."""
        return outside(self.messages[-1], len(self.messages) - 1, self.blocks.values()) if self.messages else ""

    def has(self, ref: str) -> bool:
        """Whether the handle leads to a text here."""
        found = REF.fullmatch(ref)
        block = self.blocks.get(found[1]) if found else None
        if not found or not block:
            return False
        first, last = int(found[2] or 1), int(found[3] or found[2] or 1)
        return first <= last and first <= len(block.cut.parts)

    def text_of(self, ref: str) -> str:
        """The text behind a handle that `has` knows; a range is clamped to the parts that there are."""
        found = REF.fullmatch(ref)
        if not found:
            return ""
        return self.blocks[found[1]].slice(int(found[2]) if found[2] else None, int(found[3]) if found[3] else None)

    def without_blocks(self, preview_chars: int) -> tuple[Mapping[str, Any], ...]:
        """The messages with a stub in the place of each block."""
        stubs = {(b.message, b.piece): stub(b, preview_chars) for b in self.blocks.values()}
        return tuple(stubbed(message, i, stubs) for i, message in enumerate(self.messages))

    def task(self) -> str:
        """What was said outside the blocks, system messages aside; empty when all is in them."""
        said = []
        for i, message in enumerate(self.messages):
            if message.get("role") not in SYSTEM:
                text = outside(message, i, self.blocks.values())
                said += [(str(message.get("role")), text)] if text else []
        if len(said) == 1 and said[0][0] == "user":
            return said[0][1]
        return "\n\n".join(f"{role}: {text}" for role, text in said)


def offload(messages: Sequence[Mapping[str, Any]], count: Counter, min_tokens: int, most_parts: int) -> Sheet:
    """Put every user and tool text of `min_tokens` or more behind a handle; never the system prompt.

    count: of the tier that plans, whose tokens are saved. most_parts: into which a text without structure is cut.
    """
    blocks: dict[str, Block] = {}
    for i, message in enumerate(messages):
        if message.get("role") not in ("user", "tool"):
            continue
        for piece, text in texts(message.get("content")):
            tokens = count(text) if len(text.encode()) >= min_tokens else 0  # no tokenizer makes more tokens than bytes
            if tokens >= min_tokens:
                name = f"c{len(blocks) + 1}"
                blocks[name] = Block(name, i, piece, text, tokens, cut(text, most_parts))
    return Sheet(tuple(messages), blocks)


def texts(content: Any) -> list[tuple[int | None, str]]:
    """The texts of a message's content, each with its place."""
    if isinstance(content, str):
        return [(None, content)]
    parts = enumerate(content) if isinstance(content, list) else ()
    return [(i, part["text"]) for i, part in parts if part.get("type") == "text" and isinstance(part.get("text"), str)]


def outside(message: Mapping[str, Any], index: int, blocks: Any) -> str:
    """The message's text that is in no block."""
    taken = {block.piece for block in blocks if block.message == index}
    if not taken:
        return content_text(message.get("content"))
    return "\n".join(text for piece, text in texts(message.get("content")) if piece not in taken)


def stubbed(message: Mapping[str, Any], index: int, stubs: Mapping[tuple[int, int | None], str]) -> Mapping[str, Any]:
    content = message.get("content")
    if (index, None) in stubs:
        return {**message, "content": stubs[index, None]}
    if not isinstance(content, list) or not any(place[0] == index for place in stubs):
        return message
    return {**message, "content": [{**p, "text": stubs[index, i]} if (index, i) in stubs else p for i, p in enumerate(content)]}


def begins(text: str, chars: int) -> str:
    """The first `chars` characters, cut at the end of a word."""
    if len(text) <= chars:
        return text
    head = text[: chars + 1]
    return head.rsplit(None, 1)[0] if len(head.split()) > 1 else text[:chars]


def ends(text: str, chars: int) -> str:
    """The last `chars` characters, cut at the beginning of a word."""
    tail = text[-chars - 1 :]
    return tail.split(None, 1)[1] if len(tail.split()) > 1 else text[-chars:]


def one_line(text: str) -> str:
    return " ".join(text.split())


def stub(block: Block, preview_chars: int) -> str:
    """What stands in the place of a block where it is not shown: how it begins, and how it ends if that may be an order."""
    size = f"{len(block.cut.parts)} parts ({block.cut.kind}), {block.tokens} tokens"
    shown = begins(block.text, preview_chars)
    if len(block.text) > 2 * preview_chars:
        shown += f"\n[...]\n{ends(block.text, preview_chars // 2)}"
    return f"[{block.id}: {size}]\n{shown}\n[end of {block.id}]"


def manifest(sheet: Sheet, preview_chars: int, special: Sequence[str] = ()) -> str:
    """Every block as the planner sees it: size, beginning, end, and the first words of its parts."""
    lines = []
    for block in sheet.blocks.values():
        lines.append(stub(block, preview_chars))
        parts = block.cut.parts[:LISTED_PARTS]
        lines += [f"{block.id}.{i} {first_words(part.label, part.text)}" for i, part in enumerate(parts, 1)]
        if len(block.cut.parts) > LISTED_PARTS:
            lines.append(f"... {block.id}.{len(block.cut.parts)}")
    return neutralise("\n".join(lines), special)


def first_words(label: str, text: str) -> str:
    title = label if len(label) > 3 else ""
    return begins(one_line(f"{title} {text}".strip()), FIRST_WORDS)


def preview(sheet: Sheet, preview_chars: int, special: Sequence[str] = ()) -> str:
    """How the blocks begin and nothing else; without blocks, how the task begins."""
    shown = [begins(block.text, preview_chars) for block in sheet.blocks.values()] or [begins(sheet.task(), preview_chars)]
    return neutralise("\n\n".join(shown), special)


def numbered_like(block: Block, results: Sequence[str]) -> str:
    """Results of all parts in the block's own numbering."""
    labels = [part.label for part in block.cut.parts]
    if block.cut.kind == "paragraphs":
        labels = [f"{i}." for i in range(1, len(labels) + 1)]
    if all(short(label) for label in labels):
        return "\n".join(f"{label} {text}".strip() for label, text in zip(labels, results, strict=True))
    return "\n\n".join(f"{label}\n{text}".strip() for label, text in zip(labels, results, strict=True))


def neutral(sheet: Sheet, special: Sequence[str]) -> Sheet:
    """The sheet with control strings in blocks made harmless: what workers read and what evidence is checked against."""
    return replace(sheet, blocks={name: clean(block, special) for name, block in sheet.blocks.items()})


def clean(block: Block, special: Sequence[str]) -> Block:
    parts = tuple(replace(p, label=neutralise(p.label, special), text=neutralise(p.text, special)) for p in block.cut.parts)
    return replace(block, text=neutralise(block.text, special), cut=replace(block.cut, parts=parts))
