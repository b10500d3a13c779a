"""A tier that answers as a test tells it: with latency, log-probabilities, faults, and a ledger of its own."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.tiers.tier import DONE, Tier, event
from router.errors import NoReplica, TierFailed


@dataclass
class Said:
    """What a scripted tier says: `text` token by token, `wait_s` before the first and `token_s` before each."""

    text: str = ""
    logprob: float = -0.01
    wait_s: float = 0.0
    token_s: float = 0.0
    finish: str = "stop"
    tool_calls: list[dict[str, Any]] | None = None
    error: Exception | None = None
    dies_after: int | None = None
    """tokens of a stream after which it fails"""

    @property
    def count(self) -> int:
        """Tokens: its words, and one for each call of a tool."""
        return len(self.tokens) + len(self.tool_calls or [])

    @property
    def tokens(self) -> list[str]:
        words = self.text.split(" ")
        return [word + (" " if i < len(words) - 1 else "") for i, word in enumerate(words)] if self.text else []


Script = Callable[[Mapping[str, Any]], Said]


def asked(body: Mapping[str, Any]) -> str:
    """The last message's text."""
    return str(body["messages"][-1].get("content") or "")


def piece(frame: Mapping[str, Any], delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


@dataclass
class ScriptedTier(Tier):
    name: str
    script: Script
    bodies: list[dict[str, Any]] = field(default_factory=list)
    ledger: list[tuple[int, int]] = field(default_factory=list)
    """(input, output) tokens of each call, as this tier counts them; also of calls that were given up"""
    running: int = 0
    most_running: int = 0
    given_up: int = 0

    def usage(self, body: Mapping[str, Any], made: int) -> dict[str, int]:
        given = sum(len(str(m.get("content") or "").split()) for m in body["messages"])
        return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}

    def token(self, said: Said, text: str) -> dict[str, Any]:
        return {"token": text, "logprob": said.logprob, "top_logprobs": [{"token": "other", "logprob": said.logprob - 3}]}

    def begin(self, body: Mapping[str, Any]) -> Said:
        self.bodies.append(dict(body))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        return self.script(body)

    def end(self, body: Mapping[str, Any], made: int, finished: bool) -> None:
        self.running -= 1
        self.given_up += not finished
        usage = self.usage(body, made)
        self.ledger.append((usage["prompt_tokens"], made))

    async def complete(self, path: str, body: Mapping[str, Any], reading: Any = None, call_id: str = "") -> bytes:
        said, made, finished = self.begin(body), 0, False
        try:
            await asyncio.sleep(said.wait_s)
            if said.error:
                finished = True
                raise said.error
            await asyncio.sleep(said.token_s * len(said.tokens))
            made, finished = said.count, True
            message = {"role": "assistant", "content": said.text or None}
            if said.tool_calls:
                message["tool_calls"] = said.tool_calls
            choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": said.finish}
            if body.get("logprobs"):
                choice["logprobs"] = {"content": [self.token(said, t) for t in said.tokens]}
            frame = {"id": "scripted", "object": "chat.completion", "created": 1, "model": self.name}
            return json.dumps({**frame, "choices": [choice], "usage": self.usage(body, made)}).encode()
        finally:
            if not said.error:
                self.end(body, made, finished)
            else:
                self.running -= 1

    async def stream(self, path: str, body: Mapping[str, Any], reading: Any = None, call_id: str = "") -> AsyncIterator[bytes]:
        said, made, finished = self.begin(body), 0, False
        frame = {"id": "scripted", "object": "chat.completion.chunk", "created": 1, "model": self.name}
        try:
            await asyncio.sleep(said.wait_s)
            if said.error:
                raise said.error
            yield event(piece(frame, {"role": "assistant", "content": ""}))
            for i, text in enumerate(said.tokens):
                await asyncio.sleep(said.token_s)
                if said.dies_after == i:
                    raise TierFailed(self.name, "its replica failed")
                made += 1
                choice: dict[str, Any] = {"index": 0, "delta": {"content": text}, "finish_reason": None}
                if body.get("logprobs"):
                    choice["logprobs"] = {"content": [self.token(said, text)]}
                yield event({**frame, "choices": [choice]})
            last: dict[str, Any] = {"tool_calls": [{"index": i, **c} for i, c in enumerate(said.tool_calls or [])]}
            yield event(piece(frame, last if said.tool_calls else {}, said.finish))
            made, finished = said.count, True
            if (body.get("stream_options") or {}).get("include_usage"):
                yield event({**frame, "choices": [], "usage": self.usage(body, made)})
            yield DONE
        finally:
            if said.error:
                self.running -= 1
            else:
                self.end(body, made, finished)


def down(name: str) -> Said:
    """A tier without a replica."""
    return Said(error=NoReplica(name, "no replica is running"))
