"""The ingress's end of a tier that Ray Serve runs: plain JSON through a handle, and Ray's failures as ours."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from grpc import RpcError
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException

from deployments.lane.client import Call, Lane, LaneLost
from deployments.replicas import replica_health
from deployments.tiers.tier import SESSION, failure
from router.errors import NoReplica, RequestFailed, TierCold, TierFailed
from router.trace import Reading
from router.traffic.affinity import HEAD, How, hint_of
from router.types import Path

Late = Callable[[Mapping[str, float]], None]
LOST = (RayError, RayServeException, RpcError, LaneLost)  # of gRPC's errors Ray makes UNAVAILABLE one of its own, no other
KNOWN = 256  # replicas remembered; those that went make room
MISSED, ASK = 20, 20  # readings asked for again in one request, and how often each
LOOK_EVERY_S = 2.0  # how often a request that waits for its first token asks whether a replica is there at all
SOON_S = 0.2  # the first look, where it must not wait for a tier that sleeps
STARTS_S = 1_800.0  # a replica that does not start within that time is asked for again by the next request


def nothing(late: Mapping[str, float]) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Manner:
    """How a tier's replicas are asked."""

    timeout_s: float
    """to wait for a first token, of which a replica is there"""
    affinity: How = "none"
    head: int = HEAD
    """characters by which a new conversation finds its replica"""
    sleeps: bool = False
    """it may have no replica, while nobody asks"""
    cold_s: float = 0.0
    """to wait for the first replica"""


class ServeTier:
    """`running()` tells how many replicas the tier has; it is asked only when a first token does not come.

    late: told the busy seconds, by call id, of calls that ended before their measurement could be sent with them.
    lane: for a tier of one replica, which needs none of what a handle can do; used while there is one.
    """

    def __init__(
        self,
        name: str,
        handle: Any,
        running: Callable[[], Awaitable[int]],
        manner: Manner,
        late: Late = nothing,
        lane: Lane | None = None,
    ) -> None:
        self.name = name
        self.handle = handle.options(stream=True, method_name="openai")
        self.awake = handle.options(stream=False, method_name="awake")
        self.running = running
        self.manner = manner
        self.late = late
        self.lane = lane
        self.health = replica_health.of(str(getattr(handle, "deployment_name", name)))
        self.waking: asyncio.Task[None] | None = None
        self.missed: dict[str, int] = {}
        """call id -> how often it was asked for"""
        self.replicas: dict[str, dict[str, float]] = {}
        """replica -> what it said last of itself: busy_s since began_s (Unix time), and ratio (`metering.Rates`)"""

    async def opened(self, path: Path, body: Mapping[str, Any], reading: Reading | None, call_id: str) -> tuple[Any, str]:
        """The open generator and its first text. Raises NoReplica, TierCold, TierFailed."""
        hint = hint_of(body, SESSION.get(), self.manner.affinity, self.manner.head)
        raw, missed = json.dumps(body), self.asked_again()
        line = await self.lane.line() if self.lane else None
        if line:
            items = line.ask(path, raw, call_id, missed, hint)
        else:
            items = self.handle.remote(path, raw, call_id, missed, *([hint] if hint else []))
        try:
            status, text, told = await self.first(items)
        except BaseException as error:
            if call_id:
                self.missed[call_id] = 0
            give_up(items)
            if isinstance(error, NoReplica) and error.lost:
                self.health.failed(call_id)
            raise
        self.read(told, reading)
        if status == 200:
            self.health.worked(call_id)
            return items, text
        if status >= 500 and status != 503:
            self.health.failed(call_id)
        raise failure(self.name, status, text.encode())

    def slow(self, call_id: str) -> None:
        """A sibling was faster, although it was asked later."""
        self.health.failed(call_id)

    def asked_again(self) -> list[str]:
        """Calls that were left before their reading came; any replica may have it, so several requests ask."""
        asked = list(self.missed)[:MISSED]
        for call_id in asked:
            self.missed[call_id] += 1
            if self.missed[call_id] > ASK:
                del self.missed[call_id]
        return asked

    def read(self, told: str, reading: Reading | None) -> None:
        """told: the replica's reading, JSON, or nothing yet."""
        if not told:
            return
        found = json.loads(told)
        if reading is not None:
            reading.replica, reading.busy_s = found["replica"], found["busy_s"]
            reading.cached_tokens = found["cached_tokens"]
        self.replicas[found["replica"]] = {
            "busy_s": found["replica_busy_s"],
            "began_s": found["replica_began_s"],
            "ratio": found["ratio"],
        }
        while len(self.replicas) > KNOWN:
            self.replicas.pop(next(iter(self.replicas)))
        for call_id in found["late"]:
            self.missed.pop(call_id, None)
        if found["late"]:
            self.late(found["late"])

    async def first(self, items: Any) -> tuple[int, str, str]:
        """Raises NoReplica, TierCold."""
        try:
            if not isinstance(items, Call):
                return await self.looked_for(items)
            async with asyncio.timeout(self.manner.timeout_s):  # when the replica goes, its lane breaks: nothing to look for
                return await anext(items)
        except BackPressureError:
            raise NoReplica(self.name, "its queue is full", 2.0) from None
        except (*LOST, StopAsyncIteration) as error:
            raise NoReplica(self.name, f"its replica failed ({type(error).__name__})", lost=True) from None
        except TimeoutError:
            raise NoReplica(self.name, f"no first token within {self.manner.timeout_s:.0f} s") from None

    async def looked_for(self, items: Any) -> tuple[int, str, str]:
        """A handle does not tell that there is no replica; so that is looked for meanwhile. Raises TimeoutError, TierCold."""
        waiting = asyncio.ensure_future(items.__anext__())
        there_s = cold_s = 0.0
        look_s = min(LOOK_EVERY_S, max(SOON_S, self.manner.cold_s)) if self.manner.sleeps else LOOK_EVERY_S
        try:
            while there_s < self.manner.timeout_s:
                done, _ = await asyncio.wait({waiting}, timeout=look_s)
                if done:
                    return tuple(waiting.result())  # type: ignore[return-value]
                if await self.running():
                    there_s += look_s
                elif (cold_s := cold_s + look_s) >= self.manner.cold_s:
                    raise self.none()
                look_s = LOOK_EVERY_S
        finally:
            waiting.cancel()
        raise TimeoutError

    def none(self) -> RequestFailed:
        """Why nobody answers. A tier that sleeps is woken, and stays asked for when this request has gone elsewhere."""
        if not self.manner.sleeps:
            return NoReplica(self.name, "no replica is running")
        if self.waking is None or self.waking.done():
            self.waking = asyncio.create_task(self.wake())
        return TierCold(self.name)

    async def wake(self) -> None:
        """Serve starts a replica while a call waits for one."""
        with suppress(*LOST, TimeoutError):
            await asyncio.wait_for(self.awake.remote(), STARTS_S)

    async def close(self) -> None:
        """No request is under way any more."""
        if self.lane:
            self.lane.close()

    async def complete(self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = "") -> bytes:
        _, text = await self.opened(path, body, reading, call_id)
        return text.encode()

    async def stream(
        self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = ""
    ) -> AsyncIterator[bytes]:
        items, text = await self.opened(path, body, reading, call_id)
        told = ""
        try:
            yield text.encode()
            async for _, text, told in items:
                self.read(told, reading)
                yield text.encode()
        except LOST as error:
            self.health.failed(call_id)
            raise TierFailed(self.name, f"its replica failed in mid-answer ({type(error).__name__})") from None
        finally:
            if call_id and not told:
                self.missed[call_id] = 0
            give_up(items)


def give_up(items: Any) -> None:
    """Stop a call, whose replica may be chosen already or not."""
    items.cancel()
    # Serve's own `cancel` overlooks a replica that was chosen in this very turn of the loop: no item was awaited of it yet.
    chosen = getattr(items, "_replica_result_future", None)
    if chosen and chosen.done() and not chosen.cancelled() and not chosen.exception():
        chosen.result().cancel()
