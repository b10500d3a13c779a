"""A stream that outlives its replica: when that is lost in mid-answer, another one goes on from the tokens that came.

At most once for a stream, within the tier's budget of retries. Where it may not, or cannot, the stream ends in the error that
the lost replica left.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

from deployments.replicas.request_faults import error_of, status_of
from deployments.tiers.event_stream import END
from deployments.tiers.tier import DONE, WENT_ON
from router.errors import RequestFailed, TierFailed
from router.request.resuming import AGAIN, KEPT, Seam, Sent
from router.trace import RESUMED, Reading, Resumed
from router.traffic.retries import Retries
from router.types import Path

log = logging.getLogger("stepdown")
ERROR = b'data: {"error"'


class Events(Protocol):
    """The events of one call, as `ServeTier.events`. Raises RequestFailed."""

    def __call__(
        self,
        path: str,
        body: Mapping[str, Any],
        reading: Reading | None,
        call_id: str,
        seam: Seam | None = None,
        sent: Sent | None = None,
    ) -> AsyncGenerator[bytes]: ...


@dataclass(slots=True)
class Outliving:
    """One stream of a tier. ask: makes one of its calls. retries: see `Tier.seam_retries`. The rest: as `Tier.stream` has it."""

    tier: str
    ask: Events
    retries: Retries
    path: Path
    body: Mapping[str, Any]
    reading: Reading | None
    call_id: str
    sent: Sent = field(init=False)
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.sent = Sent(bool(self.body.get("return_token_ids")), self.body.get("thinking_token_budget") is not None)

    async def stream(self) -> AsyncGenerator[bytes]:
        """The events of the whole answer. Raises RequestFailed, also in the middle."""
        lost = None
        try:
            async with aclosing(self.ask(KEPT + self.path, self.body, self.reading, self.call_id, sent=self.sent)) as items:
                async for item in items:
                    good = before_failure(item)
                    if shown := self.sent.take(good):
                        yield shown
                    if len(good) == len(item):
                        continue
                    failed = TierFailed(self.tier, "its replica's engine failed in mid-answer")
                    if self.may_go_on(failed):
                        lost = failed
                        break
                    yield item[len(good) :]
        except TierFailed as error:
            if not self.may_go_on(error):
                raise
            lost = error
        if lost and self.sent.counted:  # only the mark of the end is missing
            yield DONE
        elif lost:
            async with aclosing(self.rest(lost)) as items:
                async for item in items:
                    yield item

    def may_go_on(self, lost: TierFailed) -> bool:
        """Whether the failure is the replica's alone, and the answer one that can go on; takes a retry of the budget."""
        stuck = "" if lost.status >= 500 else "the request's own fault"
        if stuck := stuck or self.sent.stuck():
            log.debug("a stream of tier %s ends with its replica: %s", self.tier, stuck)
        return not stuck and self.retries.may()

    async def rest(self, lost: TierFailed) -> AsyncGenerator[bytes]:
        """The rest of the answer. Raises `lost` where no other replica goes on, TierFailed where that one is lost too."""
        await asyncio.sleep(self.retries.wait_s())
        began = time.monotonic()
        second = Resumed(began - self.began, self.sent.tokens, Reading())
        call_id = self.call_id and self.call_id + RESUMED
        events = self.ask(AGAIN + self.path, self.body, second.reading, call_id, Seam.of(self.body, self.sent))
        async with aclosing(events):
            try:
                first = await anext(events, b"")
            except RequestFailed as error:
                log.warning("a stream of tier %s ends after %d tokens, no other goes on: %s", self.tier, second.tokens, error)
                raise lost from None
            second.first_token_s = time.monotonic() - began
            if self.reading is not None:
                self.reading.resumed = second
            log.info("a stream of tier %s goes on at another replica after %d tokens", self.tier, second.tokens)
            yield WENT_ON
            if shown := self.sent.take(first):
                yield shown
            async for item in events:
                if shown := self.sent.take(item):
                    yield shown


def before_failure(item: bytes) -> bytes:
    """The events before one by which vLLM says that its engine failed; the whole item where there is none."""
    if ERROR not in item:
        return item
    at = 0
    for event in item.split(END):
        error = error_of(event.decode(errors="replace"))
        if error is not None and (status_of(error) or 500) >= 500:
            return item[:at]
        at += len(event) + len(END)
    return item
