"""Answers of the Responses protocol that a later request may continue. They belong to the key that asked."""

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

TTL_S = 1_800.0  # in memory


@dataclass(frozen=True, slots=True)
class Kept:
    """One answer with all that led to it."""

    messages: Sequence[Mapping[str, Any]]
    """the chat up to and with the answer, without instructions: those do not carry over"""
    response: Mapping[str, Any]
    input_items: Sequence[Mapping[str, Any]]

    def packed(self) -> bytes:
        return json.dumps([self.messages, self.response, self.input_items]).encode()


def unpacked(raw: bytes) -> Kept:
    return Kept(*json.loads(raw))


class ResponseStates(Protocol):
    async def get(self, name: str, key_id: str) -> Kept | None: ...
    async def put(self, name: str, key_id: str, kept: Kept) -> None: ...
    async def delete(self, name: str, key_id: str) -> None: ...


class InMemory:
    """For one ingress: within `most_bytes`, the oldest are forgotten first."""

    def __init__(self, most_bytes: int, ttl_s: float = TTL_S, clock: Callable[[], float] = time.monotonic) -> None:
        self.most_bytes, self.ttl_s, self.clock = most_bytes, ttl_s, clock
        self.known: OrderedDict[tuple[str, str], tuple[float, bytes]] = OrderedDict()
        self.bytes = 0

    async def get(self, name: str, key_id: str) -> Kept | None:
        until, raw = self.known.get((name, key_id), (0.0, b""))
        return await asyncio.to_thread(unpacked, raw) if raw and self.clock() < until else None

    async def put(self, name: str, key_id: str, kept: Kept) -> None:
        raw = await asyncio.to_thread(kept.packed)
        self.forget((name, key_id))
        self.known[name, key_id] = self.clock() + self.ttl_s, raw
        self.bytes += len(raw)
        while self.known and (self.bytes > self.most_bytes or next(iter(self.known.values()))[0] <= self.clock()):
            self.forget(next(iter(self.known)))

    async def delete(self, name: str, key_id: str) -> None:
        self.forget((name, key_id))

    def forget(self, place: tuple[str, str]) -> None:
        self.bytes -= len(self.known.pop(place, (0.0, b""))[1])
