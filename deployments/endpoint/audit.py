"""Audits: asks the largest tier a share of the accepted requests again, in the background, while it is idle.

What is told to a certificate's alarm is whether the answers differ, of requests that the certificate covers; the alarm knows
how many differences are harmless. Answers that cannot be compared (free text) are not counted.
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
from deployments.endpoint.ongoing_request import CallRecord, OngoingRequest, count_call
from deployments.endpoint.openai_json import read_answer
from deployments.learning.kept.collected import Said, kept
from deployments.traffic.watched_tier import Watched
from router.decide.promises import Promises
from router.errors import NoReplica, RequestFailed, TierFailed
from router.request import wire
from router.request.token_bounds import text_length
from router.types import Call, Path, Reply

log = logging.getLogger("stepdown")
# Audits that may wait, and the bytes of their bodies; more are dropped, since those that wait are as good a sample.
WAITING = 64
WAITING_BYTES = 16_000_000
BESIDE_TEXTS = 100  # bytes of a body without its texts, or so
LOOK_EVERY_S = 0.5
TIMEOUT_S = 120.0
PATH: Path = "chat/completions"


class Auditor:
    """Makes one audit at a time, and only while the largest tier is idle.

    promises: digest of the artefact that decided -> its promises, None where it is no longer in use. draw: returns a random
    number in [0, 1).
    """

    def __init__(
        self, top: Watched, share: float, promises: Callable[[str], Promises | None], draw: Callable[[], float] = random.random
    ) -> None:
        self.top, self.share, self.promises, self.draw = top, share, promises, draw
        self.waiting: deque[OngoingRequest] = deque()
        self.bytes = 0
        self.worker: asyncio.Task[None] | None = None

    def answered(self, ongoing: OngoingRequest) -> None:
        """Called for each whole answer. Draws at random alone, so that audits are a fair sample of accepted answers."""
        if not auditable(ongoing, self.top.name) or self.draw() >= self.share:
            return
        size = size_of(ongoing)
        if len(self.waiting) >= WAITING or self.bytes + size > WAITING_BYTES:
            return
        self.waiting.append(ongoing)
        self.bytes += size
        if self.worker is None or self.worker.done():
            self.worker = asyncio.create_task(self.work())
            self.worker.add_done_callback(log_failure)

    async def close(self) -> None:
        """Drop the audits that wait and cancel the one that runs."""
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
            ongoing = self.waiting.popleft()
            self.bytes -= size_of(ongoing)
            reply, record = await self.ask(ongoing)
            differs = None if reply.error else differing(ongoing, reply)
            record.outcome = reply.error.outcome if reply.error else OUTCOMES[differs]
            if differs is not None:
                self.tell(ongoing, record, differs)
                await ongoing.accounts.share_audits()
            await ongoing.accounts.add(ongoing.row(record))
            if ongoing.accounts.collector and not reply.error:
                ongoing.accounts.collector.audited(ongoing.collecting, kept(ongoing, record, "audit"))
            if reply.error:
                await asyncio.sleep(LOOK_EVERY_S)

    async def ask(self, ongoing: OngoingRequest) -> tuple[Reply, CallRecord]:
        """The largest tier's answer to the same request; a failure is a reply too."""
        asked = await ongoing.within_window(ongoing.asked.body, self.top.name)
        call = Call("audit", self.top.name, "audit", body_of(asked, self.top.name))
        record = CallRecord(call, ongoing.now(), said=Said() if ongoing.collecting else None)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                top = ongoing.handles.get(self.top.name, self.top)
                raw = await top.complete(PATH, call.body, record.reading, ongoing.call_id(call.id))
            answer = json.loads(raw)
            reply = read_answer(call, answer)
            record.received.body(answer)
            record.usage, record.ended = reply.usage, True
            if record.said:
                record.said.document(answer["choices"][0], len(raw))
        except RequestFailed as error:
            reply = Reply(call, error=error)
        except TimeoutError:
            reply = Reply(call, error=NoReplica(call.tier, f"no answer within {TIMEOUT_S:.0f} s"))
            record.ended = True
        except (ValueError, LookupError, TypeError, AttributeError):
            reply = Reply(call, error=TierFailed(call.tier, "it gave no chat completion"))
        record.took_s = ongoing.now() - record.began_s
        if record.uncounted:
            await count_call(record, ongoing.reader(call.tier))
        return reply, record

    def tell(self, ongoing: OngoingRequest, record: CallRecord, differs: bool) -> None:
        """Report the audit to the certificate's alarm, the metrics and the estimate of the largest tier's answer lengths."""
        target, small = ongoing.decided.target, accepted(ongoing)
        promises = self.promises(ongoing.router)
        if promises and ongoing.certificate == "valid":
            promises.audited(target, differs, ongoing.asked.stream)
        if ongoing.accounts.metrics:
            ongoing.accounts.metrics.audited(target, differs, ongoing.decided.p.get(ongoing.tier))
        if small and small.usage.output_tokens and not small.estimated:
            ongoing.accounts.lengths.audited(ongoing.tier, small.usage.output_tokens, record.usage.output_tokens)


OUTCOMES = {True: "differs", False: "agrees", None: "not comparable"}


def size_of(ongoing: OngoingRequest) -> int:
    """About how many bytes its body takes, found without writing it."""
    return BESIDE_TEXTS + text_length(ongoing.asked.body)


def auditable(ongoing: OngoingRequest, top: str) -> bool:
    """Whether a smaller tier's answer was judged and accepted, and can be compared."""
    judged = ongoing.flow == "cascade" and ongoing.decided.judge is not None and not ongoing.degraded
    return judged and ongoing.tier not in ("", top) and final_answer(ongoing.answer_text) is not None


def accepted(ongoing: OngoingRequest) -> CallRecord | None:
    """The call whose answer the client got."""
    return next((r for r in ongoing.records.values() if r.call.tier == ongoing.tier and r.outcome == "accepted"), None)


def differing(ongoing: OngoingRequest, reply: Reply) -> bool | None:
    """Whether the two answers differ; None where they cannot be compared."""
    agreed = same(final_answer(ongoing.answer_text), final_answer(reply.text))
    return None if agreed is None else not agreed


def body_of(body: Mapping[str, Any], tier: str) -> dict[str, Any]:
    """The client's own request, answered in one piece."""
    sent = {key: value for key, value in body.items() if key != "stream_options"}
    return wire.forwarded({**sent, "stream": False}, tier)


def log_failure(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception():
        log.error("audits stopped", exc_info=task.exception())
