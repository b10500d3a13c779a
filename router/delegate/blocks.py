"""Puts large texts of a request behind handles: the planner sees a manifest, only the workers read the texts.

A handle is `c1` for a whole block, `c1.3` for its third part, `c1.2-5` for parts two to five. It resolves to a text of its own
request or to nothing.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from classifiers.parts.cut import Cut, cut
from classifiers.text.prompt import content_text
from router.delegate.sanitise import neutralise
from router.types import Counter

HANDLE = re.compile(r"(c[1-9][0-9]?)(?:\.([1-9][0-9]{0,2})(?:-([1-9][0-9]{0,2}))?)?")
LISTED_PARTS = 16  # parts whose first words the manifest shows
FIRST_WORDS = 48  # characters that the manifest shows of a part
SYSTEM = ("system", "developer")  # roles


@dataclass(frozen=True, slots=True)
class Block:
    """One text behind a handle."""

    id: str
    message: int
    """index of its message"""
    piece: int | None
    """index in the message's list of content; None if the content is one text"""
    text: str
    tokens: int
    cut: Cut


def is_inline(label: str) -> bool:
    """Whether the label stands on the line of its text: `1.` does, a heading does not."""
    return len(label.split()) <= 1 and not label.startswith(("#", "<", "---"))


@dataclass(frozen=True, slots=True)
class OffloadedChat:
    """A chat whose large texts are behind handles."""

    messages: tuple[Mapping[str, Any], ...]
    """as the client sent them"""
    blocks: Mapping[str, Block]

    @property
    def system(self) -> tuple[Mapping[str, Any], ...]:
        return tuple(m for m in self.messages if m.get("role") in SYSTEM)

    def resolve(self, handle: str) -> str | None:
        """The text behind a handle, parts with their labels, a range clamped to the parts there are; None if there is none."""
        found = HANDLE.fullmatch(handle)
        block = self.blocks.get(found[1]) if found else None
        if not found or not block:
            return None
        first, last = int(found[2] or 1), int(found[3] or found[2] or 1)
        if not first <= last or first > len(block.cut.parts):
            return None
        if not found[2]:
            return block.text
        parts = block.cut.parts[first - 1 : last]
        return "\n".join(f"{p.label} {p.text}".strip() if is_inline(p.label) else f"{p.label}\n{p.text}".strip() for p in parts)

    def part(self, block: str | None, n: int | None) -> str:
        """The n-th part of a block, counted from 1, without its label; empty without block or n."""
        return self.blocks[block].cut.parts[n - 1].text if block and n else ""

    def text_beside_blocks(self) -> str:
        """The text of the last message outside its blocks."""
        return text_outside(self.messages[-1], len(self.messages) - 1, self.blocks.values()) if self.messages else ""

    def task(self) -> str:
        """The text outside the blocks, system messages aside; empty if everything is in blocks."""
        texts = []
        for i, message in enumerate(self.messages):
            if message.get("role") not in SYSTEM:
                text = text_outside(message, i, self.blocks.values())
                texts += [(str(message.get("role")), text)] if text else []
        if len(texts) == 1 and texts[0][0] == "user":
            return texts[0][1]
        return "\n\n".join(f"{role}: {text}" for role, text in texts)

    def with_stubs(self, preview_chars: int) -> tuple[Mapping[str, Any], ...]:
        """The messages with a stub in the place of each block."""
        stubs = {(b.message, b.piece): stub(b, preview_chars) for b in self.blocks.values()}
        return tuple(stubbed(message, i, stubs) for i, message in enumerate(self.messages))


def offload(messages: Sequence[Mapping[str, Any]], count: Counter, min_tokens: int, most_parts: int) -> OffloadedChat:
    """Put every user and tool text of `min_tokens` or more behind a handle, never the system prompt.

    count: the planning tier's, because its tokens are saved. most_parts: limit for cutting a text without structure.
    """
    blocks: dict[str, Block] = {}
    for i, message in enumerate(messages):
        if message.get("role") not in ("user", "tool"):
            continue
        for piece, text in text_pieces(message.get("content")):
            tokens = count(text) if len(text.encode()) >= min_tokens else 0  # no tokenizer makes more tokens than bytes
            if tokens >= min_tokens:
                name = f"c{len(blocks) + 1}"
                blocks[name] = Block(name, i, piece, text, tokens, cut(text, most_parts))
    return OffloadedChat(tuple(messages), blocks)


def text_pieces(content: Any) -> list[tuple[int | None, str]]:
    """The texts of a message's content, each with its index as in `Block.piece`."""
    if isinstance(content, str):
        return [(None, content)]
    parts = enumerate(content) if isinstance(content, list) else ()
    return [(i, part["text"]) for i, part in parts if part.get("type") == "text" and isinstance(part.get("text"), str)]


def text_outside(message: Mapping[str, Any], index: int, blocks: Iterable[Block]) -> str:
    """The text of a message that is in no block."""
    taken = {block.piece for block in blocks if block.message == index}
    if not taken:
        return content_text(message.get("content"))
    return "\n".join(text for piece, text in text_pieces(message.get("content")) if piece not in taken)


def stubbed(message: Mapping[str, Any], index: int, stubs: Mapping[tuple[int, int | None], str]) -> Mapping[str, Any]:
    content = message.get("content")
    if (index, None) in stubs:
        return {**message, "content": stubs[index, None]}
    if not isinstance(content, list) or not any(place[0] == index for place in stubs):
        return message
    return {**message, "content": [{**p, "text": stubs[index, i]} if (index, i) in stubs else p for i, p in enumerate(content)]}


def head(text: str, chars: int) -> str:
    """The first `chars` characters, without a word that would be cut."""
    if len(text) <= chars:
        return text
    start = text[: chars + 1]
    return start.rsplit(None, 1)[0] if len(start.split()) > 1 else text[:chars]


def tail(text: str, chars: int) -> str:
    """The last `chars` characters, without a word that would be cut."""
    end = text[-chars - 1 :]
    return end.split(None, 1)[1] if len(end.split()) > 1 else text[-chars:]


def stub(block: Block, preview_chars: int) -> str:
    """The text in the place of a block that is not shown: its size, its beginning, and its end, which may hold an instruction."""
    size = f"{len(block.cut.parts)} parts ({block.cut.kind}), {block.tokens} tokens"
    excerpt = head(block.text, preview_chars)
    if len(block.text) > 2 * preview_chars:
        excerpt += f"\n[...]\n{tail(block.text, preview_chars // 2)}"
    return f"[{block.id}: {size}]\n{excerpt}\n[end of {block.id}]"


def manifest(chat: OffloadedChat, preview_chars: int, special: Sequence[str] = ()) -> str:
    """Every block as the planner sees it: size, beginning, end, and the first words of its parts."""
    lines = []
    for block in chat.blocks.values():
        lines.append(stub(block, preview_chars))
        parts = block.cut.parts[:LISTED_PARTS]
        lines += [f"{block.id}.{i} {first_words(part.label, part.text)}" for i, part in enumerate(parts, 1)]
        if len(block.cut.parts) > LISTED_PARTS:
            lines.append(f"... {block.id}.{len(block.cut.parts)}")
    return neutralise("\n".join(lines), special)


def first_words(label: str, text: str) -> str:
    title = label if len(label) > 3 else ""
    return head(" ".join(f"{title} {text}".split()), FIRST_WORDS)


def preview(chat: OffloadedChat, preview_chars: int, special: Sequence[str] = ()) -> str:
    """Only the beginnings of the blocks; without blocks, the beginning of the task."""
    texts = [block.text for block in chat.blocks.values()] or [chat.task()]
    return neutralise("\n\n".join(head(text, preview_chars) for text in texts), special)


def numbered_like(block: Block, results: Sequence[str]) -> str:
    """Results of all parts, numbered as the block numbers its parts."""
    labels = [part.label for part in block.cut.parts]
    if block.cut.kind == "paragraphs":
        labels = [f"{i}." for i in range(1, len(labels) + 1)]
    after_label, between = (" ", "\n") if all(map(is_inline, labels)) else ("\n", "\n\n")
    return between.join(f"{label}{after_label}{text}".strip() for label, text in zip(labels, results, strict=True))


def neutralise_blocks(chat: OffloadedChat, special: Sequence[str]) -> OffloadedChat:
    """The chat with control strings in its blocks made harmless: workers read it, and evidence is checked against it."""
    return replace(chat, blocks={name: neutralise_block(block, special) for name, block in chat.blocks.items()})


def neutralise_block(block: Block, special: Sequence[str]) -> Block:
    parts = tuple(replace(p, label=neutralise(p.label, special), text=neutralise(p.text, special)) for p in block.cut.parts)
    return replace(block, text=neutralise(block.text, special), cut=replace(block.cut, parts=parts))
