"""A tier's stream that is held back: not one byte reaches the client before the flow accepts the answer."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from deployments.endpoint.openai_json import parts_of, usage_of
from deployments.endpoint.received import SAID, Received
from deployments.learning.kept.collected import Said
from deployments.tiers.tier import DONE
from router.delegate.hidden_turns import CALL_ID_PREFIX
from router.delegate.splice import Splicer
from router.request.answer_tokens import AnswerReader
from router.request.message_pieces import joined_calls
from router.request.server_tools import calls_ours
from router.request.wire import margin
from router.types import Call, Reply, Usage

AT_ONCE = 50  # chunks of a held answer
GENERATED = (*SAID, "tool_calls")
"""fields of a piece in which a tier says something"""


class ClientCalls:
    """Turns a tier's tool calls into those that the client gets: without the server's own, and with ids that name hidden turns.

    state: returns the name of the hidden turns, and is called when a call passes; None: ids stay as they are.
    """

    def __init__(self, state: Callable[[], str] | None = None) -> None:
        self.state = state
        self.places: dict[int, int | None] = {}
        """index at the tier -> at the client; None: ours, left out"""

    def of(self, pieces: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Whole calls, or the pieces of a stream."""
        return [shown for i, piece in enumerate(pieces) if (shown := self.shown(piece, piece.get("index", i)))]

    def shown(self, piece: Mapping[str, Any], index: int) -> dict[str, Any] | None:
        first = index not in self.places
        if first:
            passed = sum(place is not None for place in self.places.values())
            self.places[index] = None if calls_ours(piece) else passed
        place = self.places[index]
        if place is None:
            return None
        shown = {**piece, "index": place} if "index" in piece else {**piece}
        return shown | {"id": f"{CALL_ID_PREFIX}{self.state()}_{place}"} if self.state and (first or piece.get("id")) else shown

    def finish(self, reason: str | None) -> str | None:
        """A turn that called nothing of the client's has simply ended."""
        only_ours = self.places and all(place is None for place in self.places.values())
        return "stop" if reason == "tool_calls" and only_ours else reason

    def clean(self, choice: dict[str, Any], key: str) -> None:
        """Make a choice the client's; key: `message`, or `delta` in a stream."""
        said = choice.get(key) or {}
        if said.get("tool_calls"):
            calls = self.of(said["tool_calls"])
            rest = {k: v for k, v in said.items() if k != "tool_calls"}
            choice[key] = rest | ({"tool_calls": calls} if calls else {})
        choice["finish_reason"] = self.finish(choice.get("finish_reason"))


class HeldAnswer:
    """A stream that is open and not yet the client's. first: called at its first token. said: gathers it to be kept."""

    def __init__(self, call: Call, events: AsyncGenerator[bytes], first: Callable[[], None], said: Said | None = None) -> None:
        self.call, self.events, self.first, self.said = call, events, first, said
        self.seen: list[dict[str, Any]] = []
        self.tokens = 0
        """pieces of the answer's text; those of its thought do not count"""
        self.reader = AnswerReader()
        self.received = Received()
        self.spoke = False
        self.usage = Usage()
        self.given_usage: Mapping[str, Any] = {}
        """as the tier reported it"""
        self.ended = False

    async def more(self) -> AsyncIterator[dict[str, Any]]:
        """Chunks that have choices, as they come; notes the usage. Raises RequestFailed for a stream that breaks."""
        async for raw in self.events:
            for part in parts_of(raw):
                if part == DONE[6:-2]:
                    continue
                data = json.loads(part)
                if data.get("usage"):
                    self.usage, self.given_usage = usage_of(data), data["usage"]
                if data["choices"]:
                    self.received.body(data)
                    if self.said:
                        self.said.chunk(data["choices"][0], len(part))
                    self.count(data["choices"][0])
                    yield {k: v for k, v in data.items() if k != "usage"}
        self.reader.end()
        self.ended = True

    def count(self, choice: Mapping[str, Any]) -> None:
        """Count tokens of text; a tool call is judged whole."""
        said = self.reader.read(choice)
        if not self.spoke and any(value for name, value in (choice.get("delta") or {}).items() if name in GENERATED):
            self.spoke = True
            self.first()
        self.tokens += bool(said.text)

    async def read(self, tokens: int) -> None:
        """Read until this many tokens have come, or all; of an answer that the flow takes anyhow, until it says anything."""
        self.rest = self.more()
        async for data in self.rest:
            self.seen.append(data)
            if self.tokens >= tokens or (self.call.committed and self.reader.thought):
                return

    async def close(self) -> None:
        """Make the tier stop generating."""
        self.ended = True
        await self.events.aclose()

    async def all(self) -> AsyncIterator[dict[str, Any]]:
        for n, data in enumerate(self.seen, 1):
            yield data
            if n % AT_ONCE == 0:
                await asyncio.sleep(0)  # sending seldom waits: the whole answer would go out in one turn of the loop
        async for data in self.rest:
            yield data

    def reply(self) -> Reply:
        """The reply as far as it has come."""
        choices = [data["choices"][0] for data in self.seen]
        deltas = [choice.get("delta") or {} for choice in choices]
        logged = self.reader.tokens
        return Reply(
            self.call,
            text="".join(self.reader.text),
            thought="".join(self.reader.thought),
            finish_reason=next((c["finish_reason"] for c in reversed(choices) if c.get("finish_reason")), ""),
            usage=self.usage,
            logprobs=tuple(float(t["logprob"]) for t in logged),
            first_margin=margin(logged[0]) if logged else None,
            tool_calls=joined_calls(deltas),
            refusal="".join(d.get("refusal") or "" for d in deltas),
            partial=not self.ended,
        )

    def shown(self, data: dict[str, Any], splicer: Splicer, without_logprobs: bool, calls: ClientCalls) -> dict[str, Any]:
        """A chunk as the client gets it."""
        choice = data["choices"][0]
        calls.clean(choice, "delta")
        if without_logprobs:
            choice.pop("logprobs", None)
        delta = choice.get("delta") or {}
        if delta.get("content"):
            delta["content"] = splicer.feed(delta["content"])
        if choice.get("finish_reason"):
            rest = splicer.end()
            if rest:
                choice["delta"] = {**delta, "content": (delta.get("content") or "") + rest}
        return data
