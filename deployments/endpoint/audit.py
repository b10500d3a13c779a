"""Audits: a share of accepted answers is asked of the largest tier too, in the background, when it has nothing to do.

An answer that differs counts as worse. That errs on the side of the alarm: the largest tier may be the one that is wrong.
Answers that cannot be compared (free text) say nothing and are not counted.
"""

import asyncio
import json
import logging
import random
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from classifiers.replies.answers import final_answer, same
from deployments.endpoint.openai_json import read_answer
from deployments.endpoint.request_record import Job, Record
from deployments.tiers.tier import Tier
from router.decide.promises import Promises
from router.errors import NoReplica, RequestFailed, TierFailed
from router.request import wire
from router.types import Call, Reply, Usage

log = logging.getLogger("stepdown")
WAITING, WAITING_BYTES = 64, 16_000_000  # more are dropped: those that wait are a sample as good
LOOK_EVERY_S = 0.5
TIMEOUT_S = 120.0
PATH = "chat/completions"


class Auditor:
    """One audit at a time, begun only while the top tier does nothing: it never has more than that one call of ours.

    promises: asked each time, for they may be exchanged. draw: a number in [0, 1), by chance.
    """

    def __init__(
        self, top: Tier, share: float, promises: Callable[[], Promises], draw: Callable[[], float] = random.random
    ) -> None:
        self.top, self.share, self.promises, self.draw = top, share, promises, draw
        self.waiting: deque[Job] = deque()
        self.bytes = 0
        self.worker: asyncio.Task[None] | None = None

    def answered(self, job: Job) -> None:
        """A request got its whole answer. Drawn by chance alone, so that audits stand for all accepted answers."""
        if not auditable(job, self.top.name) or self.draw() >= self.share:
            return
        size = len(json.dumps(job.asked.body))
        if len(self.waiting) >= WAITING or self.bytes + size > WAITING_BYTES:
            return
        self.waiting.append(job)
        self.bytes += size
        if self.worker is None or self.worker.done():
            self.worker = asyncio.create_task(self.work())
            self.worker.add_done_callback(said_why)

    async def close(self) -> None:
        """Drop what waits, end what runs."""
        self.waiting.clear()
        if self.worker:
            self.worker.cancel()
            with suppress(asyncio.CancelledError):
                await self.worker

    async def work(self) -> None:
        while self.waiting:
            if self.top.running or self.top.waiting:
                await asyncio.sleep(LOOK_EVERY_S)
                continue
            job = self.waiting.popleft()
            self.bytes -= len(json.dumps(job.asked.body))
            reply, record = await self.ask(job)
            differs = None if reply.error else differing(job, reply)
            record.outcome = reply.error.code if reply.error else OUTCOMES[differs]
            if differs is not None:
                self.tell(job, record, differs)
            await job.accounts.add(job.row(record))
            if reply.error:
                await asyncio.sleep(LOOK_EVERY_S)

    async def ask(self, job: Job) -> tuple[Reply, Record]:
        """The top tier's answer to the same request; a failure is a reply too."""
        call = Call("audit", self.top.name, "audit", body_of(job.asked.body, self.top.name))
        record = Record(call, job.now())
        try:
            async with asyncio.timeout(TIMEOUT_S):
                raw = await self.top.complete(PATH, call.body, record.reading, job.call_id(call.id))
            reply = read_answer(call, json.loads(raw))
            record.usage = reply.usage
        except RequestFailed as error:
            reply = Reply(call, error=error)
        except TimeoutError:
            reply = Reply(call, error=NoReplica(call.tier, f"no answer within {TIMEOUT_S:.0f} s"))
            record.usage, record.estimated = Usage(job.counts[call.tier](wire.facts(job.asked).counted)), True
        except (ValueError, LookupError, TypeError, AttributeError):
            reply = Reply(call, error=TierFailed(call.tier, "it gave no chat completion"))
        record.took_s = job.now() - record.began_s
        return reply, record

    def tell(self, job: Job, record: Record, differs: bool) -> None:
        """The alarm, the metrics and the guess of what the top tier writes learn of it."""
        target, small = job.decided.target, accepted(job)
        self.promises().audited(target, differs, job.asked.stream)
        if job.accounts.metrics:
            job.accounts.metrics.audited(target, differs, job.decided.p.get(job.tier))
        if small and small.usage.output_tokens and not small.estimated:
            job.accounts.lengths.audited(job.tier, small.usage.output_tokens, record.usage.output_tokens)


OUTCOMES = {True: "differs", False: "agrees", None: "not comparable"}


def auditable(job: Job, top: str) -> bool:
    """An answer that was looked at and accepted, of a smaller tier, and that can be compared."""
    judged = job.flow == "cascade" and job.decided.ladder is not None and not job.degraded
    return judged and job.tier not in ("", top) and final_answer("".join(job.answer)) is not None


def accepted(job: Job) -> Record | None:
    """The call whose answer the client got."""
    return next((r for r in job.records.values() if r.call.tier == job.tier and r.outcome == "accepted"), None)


def differing(job: Job, reply: Reply) -> bool | None:
    """None: the two cannot be compared."""
    agreed = same(final_answer("".join(job.answer)), final_answer(reply.text))
    return None if agreed is None else not agreed


def body_of(body: Mapping[str, Any], tier: str) -> dict[str, Any]:
    """The client's own request, answered in one piece."""
    sent = {key: value for key, value in body.items() if key != "stream_options"}
    return wire.forwarded({**sent, "stream": False}, tier)


def said_why(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception():
        log.error("audits stopped", exc_info=task.exception())
