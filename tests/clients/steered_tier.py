"""A tier that a chat's own words steer, and that remembers every body it was sent."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from deployments.tiers.tier import DONE, Tier, event
from router.errors import NoReplica, RequestFailed, TierBusy, TierFailed
from router.trace import Reading
from router.types import Path
from tests.clients.script import Call, Said, content, said

HEAD = {"id": "chatcmpl-steered", "created": 1}
ARGUMENT_PIECE = 7  # characters


@dataclass
class SteeredTier(Tier):
    """It speaks as vLLM: reasoning under `reasoning`, a first piece in the chunk that opens a stream, interleaved calls."""

    name: str
    bodies: list[dict[str, Any]] = field(default_factory=list)

    async def begin(self, body: Mapping[str, Any]) -> Said:
        self.bodies.append(dict(body))
        turn = said(body, self.name)
        await asyncio.sleep(turn.wait_s)
        if turn.fails:
            raise failure(self.name, turn.fails)
        return turn

    async def complete(self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = "") -> bytes:
        turn = await self.begin(body)
        message: dict[str, Any] = {"role": "assistant", "content": turn.text or None}
        message |= {"reasoning": turn.reasoning} if turn.reasoning else {}
        message |= {"tool_calls": [called(body, i, call) for i, call in enumerate(turn.calls)]} if turn.calls else {}
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": turn.finish}
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [token(piece, turn.logprob) for piece in pieces(turn.text)]}
        head = HEAD | {"object": "chat.completion", "model": self.name}
        return json.dumps(head | {"choices": [choice], "usage": usage(body, turn)}).encode()

    async def stream(
        self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = ""
    ) -> AsyncGenerator[bytes]:
        turn = await self.begin(body)
        head = HEAD | {"object": "chat.completion.chunk", "model": self.name}
        for i, delta in enumerate(deltas(body, turn)):
            if turn.cut == i:
                raise TierFailed(self.name, "told to break off", 500)
            choice = {"index": 0, "delta": ({"role": "assistant"} if i == 0 else {}) | delta, "finish_reason": None}
            if body.get("logprobs") and "content" in delta:
                choice["logprobs"] = {"content": [token(delta["content"], turn.logprob)]}
            yield event(head | {"choices": [choice]})
        yield event(head | {"choices": [{"index": 0, "delta": {}, "finish_reason": turn.finish}]})
        if (body.get("stream_options") or {}).get("include_usage"):
            yield event(head | {"choices": [], "usage": usage(body, turn)})
        yield DONE


def failure(tier: str, status: int) -> RequestFailed:
    """The error of a tier that was told to fail."""
    if status == 503:
        return NoReplica(tier, "told to be away", 1)
    return TierBusy(tier, "told to be full", 1) if status == 429 else TierFailed(tier, "told to fail", status)


def pieces(text: str) -> list[str]:
    """Words with the spaces after them."""
    parts = text.split(" ")
    return [part + " " for part in parts[:-1]] + parts[-1:] if text else []


def deltas(body: Mapping[str, Any], turn: Said) -> Iterator[dict[str, Any]]:
    for piece in pieces(turn.reasoning):
        yield {"reasoning": piece}
    if turn.reasoning and turn.calls:
        yield {"content": "\n\n"}  # as models do between thinking and calling
    for piece in pieces(turn.text):
        yield {"content": piece}
    yield from interleaved(body, turn.calls)


def interleaved(body: Mapping[str, Any], calls: tuple[Call, ...]) -> Iterator[dict[str, Any]]:
    """The beginning of every call, then the arguments of all of them piece by piece in turn."""
    for i, call in enumerate(calls):
        yield {"tool_calls": [{"index": i, **called(body, i, Call(call.name, ""))}]}
    cut = [[c.arguments[at : at + ARGUMENT_PIECE] for at in range(0, len(c.arguments), ARGUMENT_PIECE)] for c in calls]
    for row in zip_longest(*cut):
        for i, piece in enumerate(row):
            if piece:
                yield {"tool_calls": [{"index": i, "function": {"arguments": piece}}]}


def called(body: Mapping[str, Any], i: int, call: Call) -> dict[str, Any]:
    """Its id is another in each turn, and the same whenever the turn is repeated."""
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": f"call_{len(body['messages'])}_{i}", "type": "function", "function": function}


def token(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "top_logprobs": [{"token": "other", "logprob": logprob - 3}]}


def usage(body: Mapping[str, Any], turn: Said) -> dict[str, Any]:
    """Counts words."""
    given = sum(len(content(message).split()) for message in body["messages"])
    thought = len(pieces(turn.reasoning))
    made = thought + len(pieces(turn.text)) + len(turn.calls)
    shown = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
    return shown | {"completion_tokens_details": {"reasoning_tokens": thought}} if thought else shown
