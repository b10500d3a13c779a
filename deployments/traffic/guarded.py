"""What stands around every call to a model, a tier's or a service's: its circuit, its rest, and one more try."""

import asyncio
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from deployments.replicas.replica_health import ReplicaHealth
from deployments.traffic.hedged_call import Ask
from router.errors import NoReplica, RequestFailed, TierBusy, TierFailed, TierMisconfigured
from router.trace import Reading
from router.traffic.breaker import Breaker
from router.traffic.retries import Retries

log = logging.getLogger("stepdown")
TELL_AGAIN_S = 60.0  # between two lines of the log on what to mend at one model

T = TypeVar("T")


def down(error: RequestFailed) -> bool:
    """The tier cannot answer, so another may; a request's own fault is no such failure."""
    return isinstance(error, NoReplica | TierFailed) and error.status >= 500


def lost(error: RequestFailed) -> bool:
    """One replica failed; another of the tier may answer."""
    return down(error) and (not isinstance(error, NoReplica) or error.lost)


class Guarded:
    """name: of the model, by which the breaker knows it. siblings: a lost call may be sent once more, to another replica."""

    def __init__(self, name: str, breaker: Breaker, retries: Retries, siblings: bool) -> None:
        self.name, self.breaker, self.retries, self.siblings = name, breaker, retries, siblings
        self.told_s = -TELL_AGAIN_S
        """when the log was told last what to mend, by time.monotonic"""

    @property
    def replica_health(self) -> ReplicaHealth | None:
        """Which replicas are ill; None: they cannot be told apart."""
        return None

    async def retried(self, ask: Ask[T], reading: Reading | None, call_id: str) -> T:
        """The answer; from another replica if one is lost before it said anything."""
        try:
            return await self.tried_once(ask, reading, call_id)
        except RequestFailed as error:
            if not (self.siblings and lost(error) and self.retries.may()):
                raise
        await asyncio.sleep(self.retries.wait_s())
        return await self.tried_once(ask, reading, call_id)

    async def tried_once(self, ask: Ask[T], reading: Reading | None, call_id: str) -> T:
        with self.guarded():
            answer = await ask(reading, call_id)
        self.breaker.worked(self.name)
        return answer

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Report failures that are the tier's to the breaker. Raises NoReplica at once while no request should be sent."""
        if resting := self.resting():
            raise resting
        self.breaker.sent(self.name)
        try:
            yield
        except RequestFailed as error:
            if self.to_blame(error):
                self.breaker.failed(self.name)
            elif isinstance(error, TierBusy) or not down(error):
                self.breaker.worked(self.name)
            if isinstance(error, TierBusy):
                self.breaker.back_off(self.name, error.told_s)
            self.tell_operator(error)
            raise

    def resting(self) -> NoReplica | None:
        """The error for a request while none should be sent; None: send."""
        if not (left_s := self.breaker.left_s(self.name)):
            return None
        kind = NoReplica if self.breaker.open_s(self.name) else TierBusy
        return kind(self.name, self.breaker.why(self.name), retry_after_s=math.ceil(left_s))

    def to_blame(self, error: RequestFailed) -> bool:
        """Whether the tier as a whole failed. While some replicas are known to be well, a lost one is not the tier."""
        return down(error) and not isinstance(error, TierBusy) and not (lost(error) and self.some_well())

    def tell_operator(self, error: RequestFailed) -> None:
        """Write into the log what the operator has to mend, once in a while."""
        if isinstance(error, TierMisconfigured) and time.monotonic() >= self.told_s + TELL_AGAIN_S:
            self.told_s = time.monotonic()
            log.error(error.mend)

    def some_well(self) -> bool:
        """Whether some replicas are known to be well: then a failure is not the tier's."""
        return self.siblings and self.replica_health is not None and self.replica_health.some_well()
