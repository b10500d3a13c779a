"""The replica's part in streams that outlive a replica: it tells each event's tokens, and goes on from tokens of another one.

It knows OpenAI's JSON and needs neither Ray nor vLLM; vllm_going_on.py makes the engine go on.
"""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from deployments.replicas.request_faults import Refusal
from router.errors import SeamDiffers
from router.request.resuming import AGAIN, KEPT, Rejoined, Seam, without_prompt

SEAM: ContextVar[Seam | None] = ContextVar("seam", default=None)
"""where the call that is under way goes on; None: it begins. Of the task that answers the call, and of those that it starts"""
DIFFERS = 409


@dataclass(frozen=True, slots=True)
class Asked:
    """One call, as its path and its body say it."""

    path: str
    """without the mark before it"""
    body: Mapping[str, Any]
    """as vLLM gets it"""
    marked: bool = False
    """the caller wants each event's tokens"""
    shows_prompt: bool = False
    """the client asked for ids itself, so those of the prompt stay"""
    seam: Seam | None = None

    @classmethod
    def read(cls, path: str, given: Mapping[str, Any]) -> "Asked":
        if path.startswith(KEPT):
            own = bool(given.get("return_token_ids"))
            return cls(path.removeprefix(KEPT), {**given, "return_token_ids": True}, True, own)
        if path.startswith(AGAIN):
            seam = Seam.read(given)
            return cls(path.removeprefix(AGAIN), {**seam.asked, "return_token_ids": True}, True, seam.shows_ids, seam)
        return cls(path, given)

    @property
    def said(self) -> int:
        """Tokens of the answer that came already, so that they are read and not made."""
        return self.seam.tokens if self.seam else 0

    def told(self, answers: AsyncGenerator[Any]) -> AsyncGenerator[Any]:
        """The engine's answers as the caller gets them."""
        if not self.marked:
            return answers
        short = answers if self.shows_prompt else without_prompts(answers)
        return rejoined(short, self.seam) if self.seam else short


async def without_prompts(answers: AsyncGenerator[Any]) -> AsyncGenerator[Any]:
    """The first event with tokens is the last in which the prompt's may stand."""
    async with aclosing(answers):
        async for answer in answers:
            if not isinstance(answer, str):
                yield answer
                continue
            yield without_prompt(answer)
            if '"token_ids":[' in answer:
                break
        async for answer in answers:
            yield answer


async def rejoined(answers: AsyncGenerator[Any], seam: Seam) -> AsyncGenerator[Any]:
    """The events that follow those that were sent; a Refusal where this replica made others of the same tokens."""
    joint = Rejoined(seam)
    async with aclosing(answers):
        try:
            async for answer in answers:
                shown = joint.take(answer) if isinstance(answer, str) else answer
                if shown:
                    yield shown
        except SeamDiffers as error:
            told = {"message": str(error), "type": "server_error", "param": None, "code": error.code}
            yield Refusal(DIFFERS, json.dumps({"error": told}))
