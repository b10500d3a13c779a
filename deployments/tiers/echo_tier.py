"""A tier without a model: it repeats its prompt, slowly, wrongly or not at all if its settings say so. For testing plumbing."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from classifiers.text.prompt import content_text
from deployments.ids import fresh
from deployments.tiers.tier import DONE, Tier, event
from router import config
from router.errors import TierFailed
from router.request.body import answer_limit
from router.trace import Reading
from router.types import Path


class EchoTier(Tier):
    def __init__(self, settings: config.EchoTier, first_token_s: float | None = None) -> None:
        self.name, self.first_token_s = settings.name, first_token_s
        self.settings = settings

    def words(self, path: Path, body: Mapping[str, Any]) -> list[str]:
        """The answer in pieces that join to it; as many as the request's token limit allows."""
        prompt = content_text(body["messages"][-1].get("content")) if path == "chat/completions" else str(body["prompt"])
        answer = self.settings.answers.get(prompt, prompt)
        pieces = [piece + " " for piece in answer.split(" ")]
        pieces[-1] = pieces[-1][:-1]
        return pieces[: answer_limit(body)]

    async def first_token(self) -> None:
        """Wait for it, or fail as the settings say."""
        await asyncio.sleep(self.settings.delay_s)
        if self.settings.fail == "error":
            raise TierFailed(self.name, "told to fail", 500)
        if self.settings.fail == "refuse":
            raise TierFailed(self.name, "told to refuse", 400)

    def frame(self, path: Path, kind: str) -> dict[str, Any]:
        chat = path == "chat/completions"
        name = ("chat.completion" if chat else "text_completion") + (".chunk" if chat and kind == "chunk" else "")
        return {"id": f"echo-{fresh()[:12]}", "object": name, "created": int(time.time()), "model": self.name}

    def usage(self, body: Mapping[str, Any], pieces: list[str]) -> dict[str, int]:
        prompt_tokens = len(json.dumps(body.get("messages") or body.get("prompt")).split())
        total = prompt_tokens + len(pieces)
        return {"prompt_tokens": prompt_tokens, "completion_tokens": len(pieces), "total_tokens": total}

    async def complete(self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = "") -> bytes:
        await self.first_token()
        pieces = self.words(path, body)
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        if path == "chat/completions":
            choice["message"] = {"role": "assistant", "content": "".join(pieces)}
        else:
            choice["text"] = "".join(pieces)
        return json.dumps({**self.frame(path, "whole"), "choices": [choice], "usage": self.usage(body, pieces)}).encode()

    async def stream(
        self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = ""
    ) -> AsyncGenerator[bytes]:
        await self.first_token()
        frame, pieces = self.frame(path, "chunk"), self.words(path, body)
        for i, piece in enumerate(pieces):
            if self.settings.fail == "mid-stream" and i == 2:
                raise TierFailed(self.name, "told to fail in mid-stream", 500)
            said = {"delta": {"role": "assistant", "content": piece}} if path == "chat/completions" else {"text": piece}
            end = "stop" if i == len(pieces) - 1 else None
            yield event({**frame, "choices": [{"index": 0, **said, "finish_reason": end}]})
            await asyncio.sleep(self.settings.delay_s)
        if (body.get("stream_options") or {}).get("include_usage"):
            yield event({**frame, "choices": [], "usage": self.usage(body, pieces)})
        yield DONE
