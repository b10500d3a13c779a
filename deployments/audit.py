"""Audits: a share of accepted answers is asked of the largest tier too, in the background, when it has nothing to do.

An answer that differs counts as worse. That errs on the side of the alarm: the largest tier may be the one that is wrong.
Answers that cannot be compared (free text) say nothing and are not counted.
"""

import asyncio
import json
import logging
import random
from collections.abc import Callable, Mapping
from typing import Any

from classifiers.answers import final_answer, same
from deployments.tier import Tier
from router.errors import RequestFailed

log = logging.getLogger("stepdown")
WAITING = 64  # audits; more are dropped, since those that wait are a sample as good
LOOK_EVERY_S = 0.5
Told = Callable[[str, bool], None]


class Auditor:
    """told(target, differs): where the outcome goes. idle(): whether nobody waits for an answer."""

    def __init__(
        self, top: Tier, share: float, told: Told, idle: Callable[[], bool], draw: Callable[[], float] = random.random
    ) -> None:
        self.top, self.share, self.told, self.idle, self.draw = top, share, told, idle, draw
        self.waiting: asyncio.Queue[tuple[str, Mapping[str, Any], str]] = asyncio.Queue(WAITING)
        self.worker: asyncio.Task[None] | None = None

    def accepted(self, target: str, body: Mapping[str, Any], text: str) -> None:
        """An answer of a smaller tier went out. Drawn by chance alone, so that audits stand for all of them."""
        if self.draw() >= self.share or self.waiting.full() or final_answer(text) is None:
            return
        self.waiting.put_nowait((target, body, text))
        if self.worker is None or self.worker.done():
            self.worker = asyncio.create_task(self.work())

    async def work(self) -> None:
        while not self.waiting.empty():
            while not self.idle():
                await asyncio.sleep(LOOK_EVERY_S)
            target, body, text = self.waiting.get_nowait()
            try:
                raw = await self.top.complete("chat/completions", {**body, "model": self.top.name, "stream": False})
            except RequestFailed as error:
                log.warning("an audit failed: %s", error)
                continue
            answer = json.loads(raw)["choices"][0]["message"].get("content") or ""
            agreed = same(final_answer(text), final_answer(answer))
            if agreed is not None:
                self.told(target, not agreed)
