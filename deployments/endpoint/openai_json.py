"""OpenAI's answers as JSON: read into replies, and written for clients."""

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from deployments.ids import REPLY, fresh
from router.request.answer_tokens import of_choice, reasoning_tokens
from router.request.thoughts import spoken
from router.request.wire import margin
from router.types import Call, Reply, Usage

ID_MARKS = (b'"id":', b'"id": ')


def usage_of(body: Mapping[str, Any]) -> Usage:
    """Tokens that the tier reported; zero where it reported none."""
    given = body.get("usage") or {}
    return Usage(int(given.get("prompt_tokens") or 0), int(given.get("completion_tokens") or 0))


def read_answer(call: Call, body: Mapping[str, Any]) -> Reply:
    """A chat completion as a reply."""
    choice = body["choices"][0]
    message = choice.get("message") or {}
    tokens, said = of_choice(choice, reasoning_tokens(body)), spoken(message)
    return Reply(
        call,
        text=said.text,
        thought=said.thought,
        finish_reason=choice.get("finish_reason") or "",
        usage=usage_of(body),
        logprobs=tuple(float(t["logprob"]) for t in tokens),
        first_margin=margin(tokens[0]) if tokens else None,
        tool_calls=tuple(message.get("tool_calls") or ()),
        refusal=message.get("refusal") or "",
    )


def stripped(body: Mapping[str, Any]) -> dict[str, Any]:
    """Without log-probabilities that the client did not ask for."""
    return {**body, "choices": [{k: v for k, v in c.items() if k != "logprobs"} for c in body["choices"]]}


def parts_of(raw: bytes) -> Iterator[bytes]:
    """The data of each server-sent event."""
    for block in raw.split(b"\n\n"):
        if block.startswith(b"data:"):
            yield block[5:].strip()


class ReplyId:
    """Gives an answer another id: that under which it is kept. Other bytes stay as they are, as far as that goes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.said = b'"id":' + json.dumps(name).encode()
        self.known = b""
        """the tier's own id, as it writes it in a stream"""

    def document(self, raw: bytes, body: Mapping[str, Any]) -> bytes:
        """A whole answer. body: the same, read."""
        own = written_id(raw, body)
        return raw.replace(own, self.said) if own else json.dumps({**body, "id": self.name}).encode()

    def events(self, item: bytes) -> bytes:
        """Events of a stream; those that have the id of the first cost a microsecond."""
        if self.known and item.count(self.known) == item.count(b"data:"):
            return item.replace(self.known, self.said)
        return b"".join(self.event(block) for block in item.split(b"\n\n") if block)

    def event(self, block: bytes) -> bytes:
        if not block.startswith(b"data:") or (data := block[5:].strip()) == b"[DONE]":
            return block + b"\n\n"
        body = json.loads(data)
        self.known = written_id(data, body) or self.known
        return b"data: " + self.document(data, body) + b"\n\n"


def written_id(raw: bytes, body: Mapping[str, Any]) -> bytes:
    """The id with its name as it stands once in an answer; empty: not known. Within a text, quotes are escaped."""
    given = body.get("id")
    forms = [mark + json.dumps(given).encode() for mark in ID_MARKS] if isinstance(given, str) and given else []
    return next((form for form in forms if raw.count(form) == 1), b"")


def frame(tier: str, kind: str) -> dict[str, Any]:
    return {"id": REPLY + fresh(), "object": kind, "created": int(time.time()), "model": tier}


def document(tier: str, text: str, usage: Mapping[str, Any]) -> dict[str, Any]:
    """A chat completion."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return {**frame(tier, "chat.completion"), "choices": [choice], "usage": dict(usage)}


def chunks_of(tier: str, text: str) -> Iterator[dict[str, Any]]:
    """A finished text as the chunks of a stream."""
    head = frame(tier, "chat.completion.chunk")
    for delta, end in (({"role": "assistant", "content": ""}, None), ({"content": text}, None), ({}, "stop")):
        yield {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": end}]}
