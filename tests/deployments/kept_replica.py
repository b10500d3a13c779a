"""Replicas that answer as vLLM's do, a word a token, and are lost when a test says so; without vLLM."""

import asyncio
import json
from typing import Any

from deployments.lane.client import LaneLost
from deployments.replicas.resuming.going_on import Asked

PROMPT = 3  # tokens of each
ANSWER = "four five six seven eight nine ten".split()


class KeptReplica:
    """answer: its words. token_s: before each."""

    def __init__(self, name: str, answer: list[str] | None = None, token_s: float = 0.0) -> None:
        self.name, self.answer, self.token_s = name, answer or ANSWER, token_s
        self.calls: list[Asked] = []
        self.ended = 0

    async def openai(self, path, raw, call_id="", missed=(), hint=""):
        asked = Asked.read(path, json.loads(raw))
        self.calls.append(asked)
        try:
            async for event in asked.told(self.events(asked)):
                if not isinstance(event, str):
                    yield event.status, event.text, ""
                    return
                yield 200, event, self.measured() if "[DONE]" in event else ""
        finally:
            self.ended += 1

    def measured(self) -> str:
        return json.dumps({"replica": self.name, "busy_s": 0.5, "cached_tokens": 2, "late": {}})

    async def events(self, asked: Asked):
        """All of the answer: the words that another replica said are made again without a wait."""
        wants, frame = asked.body.get("return_token_ids"), {"id": f"chatcmpl-{self.name}", "created": len(self.name)}
        frame |= {"object": "chat.completion.chunk", "model": asked.body["model"]}
        most = asked.body.get("max_tokens") or len(self.answer)
        yield event(
            {**frame, "choices": [choice({"role": "assistant", "content": ""})], "prompt_token_ids": wants and [7] * PROMPT}
        )
        for n, word in enumerate(self.answer[:most]):
            if n >= asked.said:
                await asyncio.sleep(self.token_s)
            finish = "length" if n + 1 == most < len(self.answer) else "stop" if n + 1 == len(self.answer) else None
            yield event({**frame, "choices": [{**choice({"content": f"{word} "}, finish), "token_ids": [n] if wants else None}]})
        usage = {"prompt_tokens": PROMPT, "completion_tokens": min(most, len(self.answer))}
        usage["total_tokens"] = sum(usage.values())
        yield event({**frame, "choices": [], "usage": usage})
        yield "data: [DONE]\n\n"


def choice(delta: Any, finish: Any = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def event(data: Any) -> str:
    return f"data: {json.dumps(data, separators=(',', ':'))}\n\n"


class Items:
    """What a handle gives back. The replica is lost after `most` items, -1: never."""

    def __init__(self, items: Any, most: int) -> None:
        self.items, self.most = items, most

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self.most == 0:
            await self.items.aclose()
            raise LaneLost("killed")
        self.most -= 1
        return await anext(self.items)

    def cancel(self):
        self.closing = asyncio.ensure_future(self.items.aclose())


class Replicas:
    """A handle of several, each call to the next of them. lost: items after which each call in turn loses its replica."""

    def __init__(self, replicas: list[KeptReplica], lost: list[int], name: str = "tier-kept") -> None:
        self.replicas, self.lost, self.deployment_name = replicas, lost, name
        self.asked: list[tuple[Any, ...]] = []

    def options(self, **_):
        return self

    def remote(self, *arguments):
        at = len(self.asked)
        self.asked.append(arguments)
        return Items(self.replicas[at % len(self.replicas)].openai(*arguments), self.lost[at] if at < len(self.lost) else -1)
