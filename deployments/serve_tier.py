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

LOOK_EVERY_S = 2.0  # how often a request that waits for its first token asks whether a replica is there at all


class ServeTier:
    """`running()` tells how many replicas the tier has; it is asked only when a first token does not come."""

    def __init__(self, name: str, handle: Any, running: Callable[[], Awaitable[int]], timeout_s: float) -> None:
        self.name = name
        self.handle = handle.options(stream=True, method_name="openai")
        self.running = running
        self.timeout_s = timeout_s

    async def opened(self, path: Path, body: Mapping[str, Any]) -> tuple[Any, str]:
        """The open generator and its first text. Raises NoReplica, TierFailed."""
        items = self.handle.remote(path, json.dumps(body))
        try:
            status, text = await self.first(items)
        except BaseException:
            items.cancel()
            raise
        if status != 200:
            raise failure(self.name, status, text.encode())
        return items, text

    async def first(self, items: Any) -> tuple[int, str]:
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
            raise NoReplica(self.name, f"its replica failed ({type(error).__name__})") from None
        finally:
            waiting.cancel()
        raise NoReplica(self.name, f"no first token within {self.timeout_s:.0f} s")

    async def complete(
        self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = ""
    ) -> bytes:
        _, text = await self.opened(path, body)
        return text.encode()

    async def stream(
        self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = ""
    ) -> AsyncIterator[bytes]:
        items, text = await self.opened(path, body)
        try:
            yield text.encode()
            async for _, text in items:
                yield text.encode()
        except (RayError, RayServeException) as error:
            raise TierFailed(self.name, f"its replica failed in mid-answer ({type(error).__name__})") from None
        finally:
            items.cancel()
