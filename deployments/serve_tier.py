"""The ingress's end of a tier that Ray Serve runs: plain JSON through a handle, and Ray's failures as ours."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException

from deployments.tier import failure
from router.errors import NoReplica, TierFailed
from router.trace import Reading
from router.types import Path

Late = Callable[[Mapping[str, float]], None]
KNOWN = 256  # replicas remembered; those that went make room
MISSED, ASK = 20, 20  # readings asked for again in one request, and how often each
LOOK_EVERY_S = 2.0  # how often a request that waits for its first token asks whether a replica is there at all


def nothing(late: Mapping[str, float]) -> None:
    pass


class ServeTier:
    """`running()` tells how many replicas the tier has; it is asked only when a first token does not come.

    late: told the busy seconds, by call id, of calls that ended before their measurement could be sent with them.
    """

    def __init__(
        self, name: str, handle: Any, running: Callable[[], Awaitable[int]], timeout_s: float, late: Late = nothing
    ) -> None:
        self.name = name
        self.handle = handle.options(stream=True, method_name="openai")
        self.running = running
        self.timeout_s = timeout_s
        self.late = late
        self.missed: dict[str, int] = {}
        """call id -> how often it was asked for"""
        self.replicas: dict[str, dict[str, float]] = {}
        """replica -> what it said last of itself: busy_s since began_s (Unix time), and ratio (`metering.Rates`)"""

    async def opened(self, path: Path, body: Mapping[str, Any], reading: Reading | None, call_id: str) -> tuple[Any, str]:
        """The open generator and its first text. Raises NoReplica, TierFailed."""
        items = self.handle.remote(path, json.dumps(body), call_id, self.asked_again())
        try:
            status, text, told = await self.first(items)
        except BaseException:
            if call_id:
                self.missed[call_id] = 0
            items.cancel()
            raise
        self.read(told, reading)
        if status != 200:
            raise failure(self.name, status, text.encode())
        return items, text

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
            "busy_s": found["replica_busy_s"], "began_s": found["replica_began_s"], "ratio": found["ratio"]
        }  # fmt: skip
        while len(self.replicas) > KNOWN:
            self.replicas.pop(next(iter(self.replicas)))
        for call_id in found["late"]:
            self.missed.pop(call_id, None)
        if found["late"]:
            self.late(found["late"])

    async def first(self, items: Any) -> tuple[int, str, str]:
        waiting = asyncio.ensure_future(items.__anext__())
        try:
            for _ in range(max(1, round(self.timeout_s / LOOK_EVERY_S))):
                done, _ = await asyncio.wait({waiting}, timeout=LOOK_EVERY_S)
                if done:
                    return tuple(waiting.result())  # type: ignore[return-value]
                if not await self.running():
                    raise NoReplica(self.name, "no replica is running")
        except BackPressureError:
            raise NoReplica(self.name, "its queue is full", 2.0) from None
        except (RayError, RayServeException, StopAsyncIteration) as error:
            raise NoReplica(self.name, f"its replica failed ({type(error).__name__})", lost=True) from None
        finally:
            waiting.cancel()
        raise NoReplica(self.name, f"no first token within {self.timeout_s:.0f} s")

    async def complete(
        self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = ""
    ) -> bytes:
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
        except (RayError, RayServeException) as error:
            raise TierFailed(self.name, f"its replica failed in mid-answer ({type(error).__name__})") from None
        finally:
            if call_id and not told:
                self.missed[call_id] = 0
            items.cancel()
