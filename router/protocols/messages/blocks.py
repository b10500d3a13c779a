"""The blocks of a stream, which clients take only one after the other, in whatever order a tier sends their pieces."""

import json
from collections import deque
from collections.abc import Mapping
from typing import Any, Literal

from router.protocols.messages.answers import Shown, arguments, text_of

Kind = Literal["text", "thinking", "tool_use"]
DELTAS = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "tool_use": ("input_json_delta", "partial_json"),
}
"""type of a delta, and the name of its text"""
written = json.JSONEncoder(separators=(",", ":")).encode  # made once: each chunk is written by it


def event(name: str, **fields: Any) -> bytes:
    """One server-sent event. ASCII only: half of a character that a tier sends must not break the stream."""
    return f"event: {name}\ndata: {written({'type': name, **fields})}\n\n".encode()


class Block:
    """What a tier said of one kind without a break, or one call of a tool."""

    __slots__ = ("call_name", "id", "index", "kind", "n", "pieces", "tier")

    def __init__(self, kind: Kind, tier: str, n: int = 0) -> None:
        self.kind, self.tier, self.n = kind, tier, n
        self.pieces: list[str] = []
        self.id, self.call_name = "", ""
        self.index = -1
        """its place among the blocks that the client has; -1: it is held"""

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def as_call(self) -> dict[str, Any]:
        return {"id": self.id, "function": {"name": self.call_name, "arguments": self.text}}

    def finished(self) -> bool:
        """Whether no piece of it is to come, given that something else has begun."""
        return self.kind != "tool_use" or bool(self.text.strip()) and arguments(self.text) is not None


class Blocks:
    """Shows the first block at once and holds what begins before it is finished: no piece is lost, no two blocks overlap.

    A call is finished when its arguments are one JSON object, or when the stream ends.
    """

    def __init__(self, shown: Shown) -> None:
        self.shown = shown
        self.all: list[Block] = []
        self.queue: deque[Block] = deque()
        """the first is the one that the client gets now"""
        self.calls: dict[int, Block] = {}
        self.blank: dict[Kind, str] = {"text": "", "thinking": ""}
        """what was said of a kind before its first word"""
        self.begun: set[Kind] = set()
        self.opened = 0

    def add(self, kind: Kind, piece: str, tier: str) -> list[bytes]:
        """A piece of text or of thinking. Until its first word comes, it may be the blank between reasoning and a call."""
        if kind not in self.begun:
            piece = self.blank[kind] = self.blank[kind] + piece
            if piece.isspace():
                return []
            self.begun.add(kind)
        last = self.queue[-1] if self.queue else None
        if last is not None and last.kind == kind:
            last.pieces.append(piece)
            return self.delta(last, piece) if last.index >= 0 else []
        block = self.new(Block(kind, tier))
        block.pieces.append(piece)
        return self.turned()

    def call(self, piece: Mapping[str, Any], place: int, tier: str) -> list[bytes]:
        """A piece of a call. place: its place in the chunk, for tiers that give no index."""
        index = piece.get("index")
        index = index if isinstance(index, int) else place
        function = piece.get("function") or {}
        said, id_, name = text_of(function.get("arguments")), text_of(piece.get("id")), text_of(function.get("name"))
        block, new = self.calls.get(index), index not in self.calls
        if block is None:
            block = self.calls[index] = self.new(Block("tool_use", tier, len(self.calls)))
        named = bool(name) and not block.call_name
        block.id, block.call_name = block.id or id_, block.call_name or name
        if said:
            block.pieces.append(said)
        if block.index >= 0:
            return self.delta(block, said) if said and block in self.queue else []
        return self.turned() if new or named else []

    def new(self, block: Block) -> Block:
        self.all.append(block)
        self.queue.append(block)
        return block

    def turned(self, ending: bool = False) -> list[bytes]:
        """Close what is finished, and open what waits, as far as the order allows. ending: everything is finished."""
        events: list[bytes] = []
        while self.queue:
            first = self.queue[0]
            if first.index < 0:
                if first.kind == "tool_use" and not first.call_name and not ending:
                    break  # a call is opened with its name
                events += self.open(first)
            if not ending and (len(self.queue) == 1 or not first.finished()):
                break
            events += self.close(self.queue.popleft())
        return events

    def ended(self) -> list[bytes]:
        """What was held. An answer without any block is one empty text."""
        if not self.all:
            self.new(Block("text", ""))
        return self.turned(ending=True)

    def open(self, block: Block) -> list[bytes]:
        block.index, self.opened = self.opened, self.opened + 1
        if block.kind == "text":
            content: dict[str, Any] = {"type": "text", "text": ""}
        elif block.kind == "thinking":
            content = {"type": "thinking", "thinking": "", "signature": ""}
        else:
            block.id = self.shown.call_id(block.id, block.n)
            content = {"type": "tool_use", "id": block.id, "name": block.call_name, "input": {}}
        start = event("content_block_start", index=block.index, content_block=content)
        return [start, *(self.delta(block, block.text) if block.pieces else [])]

    def delta(self, block: Block, piece: str) -> list[bytes]:
        if block.kind == "thinking" and self.shown.thinking != "text":
            return []
        kind, name = DELTAS[block.kind]
        return [event("content_block_delta", index=block.index, delta={"type": kind, name: piece})]

    def close(self, block: Block) -> list[bytes]:
        stop = event("content_block_stop", index=block.index)
        if block.kind != "thinking":
            return [stop]
        signed = {"type": "signature_delta", "signature": self.shown.signature(block.text, block.tier)}
        return [event("content_block_delta", index=block.index, delta=signed), stop]
