"""The ingress's end of a rung: a LoRA adapter on the replicas of another tier, its host.

The host's one object does the work, so handle, lane, health, waking and missed readings are the same for all its siblings.
Requests name the adapter as the engine knows it, and answers get the rung's own name back.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from deployments.tiers.serve_tier import ServeTier
from deployments.tiers.tier import Tier
from router.config import Config
from router.trace import Reading
from router.types import Path


class RungTier(ServeTier):
    """served: the name by which the host's engine knows the adapter. A later assignment switches new requests to another."""

    def __init__(self, name: str, host: ServeTier, served: str) -> None:
        self.__dict__.update(host.__dict__)  # the same objects, not copies
        self.name, self.served = name, served

    async def complete(self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = "") -> bytes:
        served = self.served
        raw = await super().complete(path, {**body, "model": served}, reading, call_id)
        return self.renamed(raw, served)

    async def stream(
        self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = ""
    ) -> AsyncGenerator[bytes]:
        served = self.served
        async with aclosing(super().stream(path, {**body, "model": served}, reading, call_id)) as items:
            async for item in items:
                yield self.renamed(item, served)

    def renamed(self, data: bytes, served: str) -> bytes:
        """The answer, or events of it, with the rung's name in `model`. Quotes in texts are escaped, so it is the field."""
        return data.replace(field(served), field(self.name))

    async def abilities(self) -> Mapping[str, str]:
        """Never returns: the host asks its replicas, and what they can do counts for all its siblings."""
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async def close(self) -> None:
        """The host closes what they share."""


def field(model: str) -> bytes:
    """As vLLM writes it."""
    return b'"model":' + json.dumps(model).encode()


def with_rungs(config: Config, own: Mapping[str, Tier], served: Mapping[str, str]) -> dict[str, Tier]:
    """All tiers, in the ladder's order. own: those with replicas of their own. served: rung -> name of its adapter."""
    hosts = config.hosts
    return {name: rung(name, own[hosts[name]], served[name]) if name in hosts else own[name] for name in config.names}


def rung(name: str, host: Tier, served: str) -> Tier:
    assert isinstance(host, ServeTier)  # the settings allow no other host
    return RungTier(name, host, served)
