"""A chat's stream as a response's, and a whole chat as a response.

stream   := created in_progress (item | keepalive)* (completed | incomplete | failed)
item     := output_item.added body output_item.done
message  := content_part.added (output_text.delta* output_text.done | refusal.delta* refusal.done) content_part.done
reasoning:= a part of a summary or of the text, likewise; nothing where it is hidden
call     := arguments' or input's delta* done; nothing for tools that OpenAI defines

Events are numbered from 0 without gaps. The item of `output_item.done` is the one that the last event's `output` holds.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from router.errors import RequestFailed
from router.protocols.responses.failures import in_stream
from router.protocols.responses.output import Output, Shown
from router.protocols.responses.response_object import INCOMPLETE, ended, response

written = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Stream:
    """Implements `edge.Encoder`."""

    def __init__(self, shown: Shown, echoed: Mapping[str, Any]) -> None:
        self.echoed = echoed
        self.output = Output(shown, self.tell)
        self.events: list[bytes] = []
        """not yet handed out"""
        self.number = 0
        self.finish = ""
        self.usage: Mapping[str, Any] | None = None
        self.over = False

    def tell(self, kind: str, fields: Mapping[str, Any]) -> None:
        body = written({"type": kind, "sequence_number": self.number, **fields})
        self.events.append(f"event: {kind}\ndata: {body}\n\n".encode("utf-8", "replace"))
        self.number += 1

    def told(self) -> list[bytes]:
        events, self.events = self.events, []
        return events

    def begin(self) -> None:
        if not self.number:
            for kind in ("response.created", "response.in_progress"):
                self.tell(kind, {"response": response(self.echoed, "in_progress")})

    def end(self, last: Mapping[str, Any]) -> list[bytes]:
        """The last event; nothing follows it."""
        self.tell(f"response.{last['status']}", {"response": last})
        self.over = True
        return self.told()

    def waiting(self) -> list[bytes]:
        if self.over:
            return []
        if self.number:
            self.tell("keepalive", {})
        self.begin()
        return self.told()

    def fed(self, chunk: Mapping[str, Any]) -> list[bytes]:
        if self.over:
            return []
        self.begin()
        self.usage = chunk.get("usage") or self.usage
        for choice in chunk.get("choices") or ():
            self.output.tier = chunk.get("model") or self.output.tier
            self.output.take(choice.get("delta") or {}, logprobs_of(choice))
            if choice.get("finish_reason"):
                self.finish = choice["finish_reason"]
                self.output.finish(self.finish in INCOMPLETE)
        return self.told()

    def failed(self, failed: RequestFailed) -> list[bytes]:
        if self.over:
            return []
        self.begin()
        return self.end(response(self.echoed, "failed", self.output.items, error=in_stream(failed)))

    def ended(self) -> list[bytes]:
        if self.over:
            return []
        self.begin()
        self.output.end(self.finish in INCOMPLETE)
        return self.end(ended(self.echoed, self.finish, self.output.items, self.usage))

    def said(self) -> dict[str, Any]:
        return self.output.as_chat()


def whole(shown: Shown, answer: Mapping[str, Any]) -> tuple[Output, str]:
    """A chat completion's items, and its finish reason."""
    output = Output(shown, lambda kind, fields: None)
    output.tier = answer.get("model") or ""
    choice = (answer.get("choices") or [{}])[0]
    finish = choice.get("finish_reason") or ""
    message = choice.get("message") or {}
    output.take(message, answering(logprobs_of(choice), message, answer.get("usage") or {}))
    output.end(finish in INCOMPLETE)
    return output, finish


def logprobs_of(choice: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return (choice.get("logprobs") or {}).get("content") or ()


def answering(
    logprobs: Sequence[Mapping[str, Any]], message: Mapping[str, Any], usage: Mapping[str, Any]
) -> Sequence[Mapping[str, Any]]:
    """Those of the answer's tokens: a tier counts the reasoning before it too."""
    thought = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    return logprobs[thought:] if message.get("reasoning") or message.get("reasoning_content") else logprobs
