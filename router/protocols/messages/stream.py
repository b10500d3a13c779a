"""The events of one stream: message_start, blocks one after the other, message_delta, message_stop."""

from collections.abc import Mapping
from typing import Any

from router.errors import RequestFailed
from router.protocols.messages import failures
from router.protocols.messages.answers import (
    Shown,
    content_of,
    first_choice,
    heard,
    opening,
    reasoning_of,
    stopped,
    text_of,
    usage_of,
)
from router.protocols.messages.blocks import Blocks, event


class StreamEncoder:
    """`router.protocols.edge.Encoder`. Nothing is written after `failed` or `ended`."""

    def __init__(self, shown: Shown, prompt_tokens: int = 0) -> None:
        self.shown, self.prompt_tokens = shown, prompt_tokens
        self.blocks = Blocks(shown)
        self.tier = ""
        self.finish: Mapping[str, Any] = {}
        """the choice that had a finish reason"""
        self.refused = False
        self.usage: Any = None
        self.spoken = 0
        """chunks that said something: about the tokens, where the tier does not count them"""
        self.begun = False
        self.over = False

    def begin(self) -> list[bytes]:
        if self.begun:
            return []
        self.begun = True
        usage = usage_of(None, self.prompt_tokens, output_tokens=1)
        return [event("message_start", message={**opening(self.shown), "usage": usage})]

    def waiting(self) -> list[bytes]:
        return [] if self.over else [*self.begin(), event("ping")]

    def fed(self, chunk: Mapping[str, Any]) -> list[bytes]:
        if self.over:
            return []
        events = self.begin()
        self.tier = text_of(chunk.get("model")) or self.tier
        self.usage = chunk.get("usage") or self.usage
        choice = first_choice(chunk)
        if delta := choice.get("delta"):
            events += self.told(delta)
        if choice.get("finish_reason"):
            self.finish = choice
        return events

    def told(self, delta: Mapping[str, Any]) -> list[bytes]:
        """Everything that one delta says, in the order in which a model says it."""
        events: list[bytes] = []
        thought, content = reasoning_of(delta), content_of(delta)
        if thought and self.shown.thinking != "nothing":
            events += self.blocks.add("thinking", thought, self.tier)
        if content:
            events += self.blocks.add("text", content, self.tier)
        calls = delta.get("tool_calls") or ()
        for place, piece in enumerate(calls):
            events += self.blocks.call(piece, place, self.tier)
        self.refused = self.refused or bool(delta.get("refusal"))
        self.spoken += bool(thought or content or calls)
        return events

    def failed(self, failed: RequestFailed) -> list[bytes]:
        if self.over:
            return []
        self.over = True
        return [event("error", error=failures.described(failed))]

    def ended(self) -> list[bytes]:
        if self.over:
            return []
        self.over = True
        events = [*self.begin(), *self.blocks.ended()]
        reason, sequence = stopped(self.finish, bool(self.blocks.calls), self.refused)
        usage = usage_of(self.usage, self.prompt_tokens, self.spoken)
        return [
            *events,
            event("message_delta", delta={"stop_reason": reason, "stop_sequence": sequence}, usage=usage),
            event("message_stop"),
        ]

    def said(self) -> dict[str, Any]:
        by_kind = {kind: "".join(b.text for b in self.blocks.all if b.kind == kind) for kind in ("text", "thinking")}
        calls = [block.as_call() for block in self.blocks.calls.values()]
        return heard(by_kind["text"], by_kind["thinking"], self.tier, calls, self.shown)
