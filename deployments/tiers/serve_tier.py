"""The ingress's end of a tier that Ray Serve runs: plain JSON through a handle or a lane, and Ray's failures as our errors."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from grpc import RpcError
from ray import get_runtime_context
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException

from deployments.beside_loop import written
from deployments.lane.client import Lane, LaneCall, LaneLost
from deployments.lane.frames import Item
from deployments.replicas.replica_count import running_replicas
from deployments.replicas.replica_health import ReplicaHealth, health_of
from deployments.tiers.faults import failure
from deployments.tiers.tier import SESSION, LateReadings, Tier
from router.config import VllmTier
from router.engine_settings import VllmReplicas
from router.errors import NoReplica, RequestFailed, TierBusy, TierCold, TierFailed
from router.trace import Reading
from router.traffic.affinity import HEAD, How, hint_of
from router.types import Path

log = logging.getLogger("stepdown")
LOST = (RayError, RayServeException, RpcError, LaneLost)  # Ray wraps only UNAVAILABLE of gRPC's errors
MISSED = 20  # late readings that one request asks for
ASKS = 20  # requests that ask for a late reading before it is given up
LOOK_EVERY_S = 2.0  # between two checks, while a request waits for its first token, that a replica exists at all
FIRST_LOOK_S = 0.2  # the first of these checks, where a sleeping tier must not be waited for
HEARD = 500  # replicas that are remembered
STARTS_S = 1_800.0  # a replica that does not start within that time is asked for again by the next request


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """How a tier's replicas are called."""

    timeout_s: float
    """to wait for a first token while a replica is running"""
    affinity: How = "none"
    head: int = HEAD
    """characters by which a new conversation finds its replica"""
    sleeps: bool = False
    """the tier may have no replica while it is idle"""
    cold_s: float = 0.0
    """to wait for the first replica"""


class ServeTier(Tier):
    """running: counts the tier's replicas; asked only when a first token does not come.

    late: receives the readings of calls that ended before their measurement could be sent with them.
    lane: for a tier of one replica, which needs nothing else that a handle can do; used while it is connected.
    """

    health: ReplicaHealth
    host: "ServeTier"
    """whose state counts: itself, or the tier whose replicas it shares (rung_tier.py)"""

    def __init__(
        self,
        name: str,
        handle: Any,
        running: Callable[[], Awaitable[int]],
        policy: CallPolicy,
        late: LateReadings | None = None,
        lane: Lane | None = None,
    ) -> None:
        self.name, self.host = name, self
        self.handle = handle.options(stream=True, method_name="openai")
        self.awake = handle.options(stream=False, method_name="awake")
        self.ask_abilities = handle.options(stream=False, method_name="abilities")
        self.heard: dict[str, None] = {}
        """replicas that have answered, the latest last"""
        self.unheard = asyncio.Event()
        """set while a replica may know something new of what the tier can do"""
        self.running = running
        self.policy = policy
        self.late = late
        self.lane = lane
        self.health = health_of(str(getattr(handle, "deployment_name", name)))
        self.waking: asyncio.Task[None] | None = None
        if not policy.sleeps:  # to ask a tier that sleeps would wake it: its first answer says that it is awake
            self.unheard.set()
        self.missed: dict[str, int] = {}
        """call id -> how often its reading was asked for"""

    async def open(self, path: Path, body: Mapping[str, Any], reading: Reading | None, call_id: str) -> tuple[Any, str]:
        """The call's further items and its first text. Raises NoReplica, TierCold, TierFailed."""
        hint = hint_of(body, SESSION.get(), self.policy.affinity, self.policy.head)
        return await self.send(path, await written(body), hint, reading, call_id)

    async def send(self, path: str, raw: str, hint: str, reading: Reading | None, call_id: str) -> tuple[Any, str]:
        """The same for a body as JSON. path: also that of a service."""
        missed = self.missed_readings()
        connection = await self.lane.connection() if self.lane else None
        if connection:
            items = connection.ask(path, raw, call_id, missed, hint)
        else:
            items = self.handle.remote(path, raw, call_id, missed, *([hint] if hint else []))
        try:
            status, text, measured = await self.first_item(items)
        except BaseException as error:
            if call_id:
                self.missed[call_id] = 0
            cancel(items)
            if isinstance(error, NoReplica) and error.lost:
                self.health.failed(call_id)
            raise
        self.note(measured, reading)
        if status == 200:
            self.health.worked(call_id)
            return items, text
        if status >= 500 and status != 503:
            self.health.failed(call_id)
        raise failure(self.name, status, text.encode())

    def slow(self, call_id: str) -> None:
        self.health.failed(call_id)

    def missed_readings(self) -> list[str]:
        """Calls that were cut off before their reading came. Several requests ask, for any replica may have it."""
        asked = list(self.missed)[:MISSED]
        for call_id in asked:
            self.missed[call_id] += 1
            if self.missed[call_id] > ASKS:
                del self.missed[call_id]
        return asked

    def note(self, measured: str, reading: Reading | None) -> None:
        """Fill `reading` from the replica's JSON, which is empty until the call's last item; pass late readings on."""
        if not measured:
            return
        found = json.loads(measured)
        if found["replica"] not in self.heard:
            self.heard[found["replica"]] = None
            while len(self.heard) > HEARD:
                del self.heard[next(iter(self.heard))]
            self.unheard.set()
        if reading is not None:
            reading.replica, reading.busy_s = found["replica"], found["busy_s"]
            reading.cached_tokens = found["cached_tokens"]
        for call_id in found["late"]:
            self.missed.pop(call_id, None)
        if found["late"] and self.late:
            self.late(found["late"])

    async def first_item(self, items: Any) -> Item:
        """Raises NoReplica, TierCold."""
        try:
            if not isinstance(items, LaneCall):
                return await self.first_of_handle(items)
            async with asyncio.timeout(self.policy.timeout_s):  # a lane breaks when its replica goes: no need to check for one
                return await anext(items)
        except BackPressureError:
            raise TierBusy(self.name, "its queue is full") from None
        except (*LOST, StopAsyncIteration) as error:
            raise NoReplica(self.name, f"its replica failed ({type(error).__name__})", lost=True) from None
        except TimeoutError:
            raise NoReplica(self.name, f"no first token within {self.policy.timeout_s:.0f} s") from None

    async def first_of_handle(self, items: Any) -> Item:
        """Check for replicas meanwhile: a handle does not say that there is none. Raises TimeoutError, NoReplica, TierCold."""
        waiting = asyncio.ensure_future(items.__anext__())
        waited_s = cold_s = 0.0
        look_s = min(LOOK_EVERY_S, max(FIRST_LOOK_S, self.policy.cold_s)) if self.policy.sleeps else LOOK_EVERY_S
        try:
            while waited_s < self.policy.timeout_s:
                done, _ = await asyncio.wait({waiting}, timeout=look_s)
                if done:
                    status, text, measured = waiting.result()
                    return status, text, measured
                if await self.running():
                    waited_s += look_s
                elif (cold_s := cold_s + look_s) >= self.policy.cold_s:
                    raise self.no_replica()
                look_s = LOOK_EVERY_S
        finally:
            waiting.cancel()
        raise TimeoutError

    def no_replica(self) -> RequestFailed:
        """The error of a tier without a replica. One that sleeps is woken, and stays so when this request goes elsewhere."""
        if not self.policy.sleeps:
            return NoReplica(self.name, "no replica is running")
        host = self.host
        if host.waking is None or host.waking.done():
            host.waking = asyncio.create_task(host.wake())
        return TierCold(self.name)

    async def wake(self) -> None:
        """Serve starts a replica while a call waits for one."""
        with suppress(*LOST, TimeoutError):
            await asyncio.wait_for(self.awake.remote(), STARTS_S)

    async def replicas(self) -> int:
        return int(await self.running())

    async def abilities(self) -> Mapping[str, str]:
        await self.unheard.wait()
        while True:
            self.unheard.clear()
            try:
                found: Mapping[str, str] = await self.ask_abilities.remote()  # waits for a replica
                return found
            except LOST as error:
                log.debug("what tier %s can do is asked for again: %s", self.name, error)
                await asyncio.sleep(LOOK_EVERY_S)

    async def close(self) -> None:
        if self.lane:
            self.lane.close()

    async def complete(self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = "") -> bytes:
        _, text = await self.open(path, body, reading, call_id)
        return text.encode()

    async def stream(
        self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = ""
    ) -> AsyncGenerator[bytes]:
        items, text = await self.open(path, body, reading, call_id)
        measured = ""
        try:
            yield text.encode()
            async for _, text, measured in items:
                self.note(measured, reading)
                yield text.encode()
        except LOST as error:
            self.health.failed(call_id)
            raise TierFailed(self.name, f"its replica failed in mid-answer ({type(error).__name__})") from None
        finally:
            if call_id and not measured:
                self.missed[call_id] = 0
            cancel(items)


def cancel(items: Any) -> None:
    """Stop a call, whether or not its replica is chosen yet."""
    items.cancel()
    # Serve's own `cancel` overlooks a replica that was chosen in this very turn of the loop: no item was awaited of it yet.
    chosen = getattr(items, "_replica_result_future", None)
    if chosen and chosen.done() and not chosen.cancelled() and not chosen.exception():
        chosen.result().cancel()


def make(tier: VllmTier, handle: Any, timeout_s: float, late: LateReadings | None) -> Tier:
    """A tier of vLLM replicas behind `handle`: see `tier.Engine`."""
    running = running_replicas(handle.app_name, handle.deployment_name)
    return ServeTier(tier.name, handle, running, call_policy(tier, timeout_s), late, lane_of(tier, handle))


def lane_of(tier: VllmReplicas, handle: Any) -> Lane | None:
    """Only a tier that always has one replica: nothing has to be chosen, counted for scaling or woken."""
    if tier.max_replicas is not None or tier.replicas != 1:
        return None
    ask = handle.options(stream=False, method_name="lane").remote
    return Lane(ask, get_runtime_context().get_node_id(), tier.max_ongoing)


def call_policy(tier: VllmTier, timeout_s: float) -> CallPolicy:
    affinity = tier.affinity if tier.most_replicas > 1 else "none"
    return CallPolicy(timeout_s, affinity, tier.affinity_chars, tier.sleeps, cold_s(tier))


def cold_s(tier: VllmReplicas) -> float:
    """Seconds that a request waits for the first replica."""
    if not tier.sleeps:
        return 0.0
    return tier.scaling.cold_start_wait_s if tier.scaling.when_cold == "degrade" else float("inf")
