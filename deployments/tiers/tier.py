"""What every tier can do: complete a request or stream it. Bodies and answers are OpenAI's JSON."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from deployments.replicas.replica_health import ReplicaHealth
from router.trace import Reading
from router.types import Path

DONE = b"data: [DONE]\n\n"
# A context variable and no argument: it belongs to a request and to every call that a flow makes for it, whatever the tier.
SESSION: ContextVar[str] = ContextVar("session", default="")
"""a digest of the client's own name for the conversation of this request; empty: the client named none"""

LateReadings = Callable[[Mapping[str, float]], None]
"""Receives busy seconds by call id, of calls that ended before their measurement could be sent with them."""


class Tier(Protocol):
    """One tier. An engine implements `complete` and `stream`, and overrides a default below where it can do better.

    Both raise RequestFailed before anything was answered. `reading` is filled with what was measured of the call, at the
    latest when the answer ends; a measurement that comes later is reported under `call_id`.
    """

    name: str
    health: ReplicaHealth | None = None
    """which of its replicas are ill; None: they cannot be told apart"""
    first_token_s: float | None = None
    """to wait for the first token of a stream, comments not counted; None: the tier limits that itself"""

    async def complete(self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = "") -> bytes:
        """The whole answer, as the JSON of an OpenAI response."""

    def stream(
        self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = ""
    ) -> AsyncGenerator[bytes]:
        """Server-sent events, ending with usage (unless declined) and [DONE]."""

    async def replicas(self) -> int:
        """How many of its replicas run."""
        return 1

    async def abilities(self) -> Mapping[str, str]:
        """What its replicas found that the tier can and cannot do: see `router.decide.abilities.Abilities.report`.

        Returns once they have been asked, and when called again only after a replica that has not been asked yet has answered.
        """
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]  # never: there are no replicas

    def slow(self, call_id: str) -> None:
        """A second replica, asked later, answered this call first."""
        return None

    async def close(self) -> None:
        """Let go of what it holds open; no request is running any more."""
        return None


@dataclass(frozen=True, slots=True)
class Engine:
    """How an engine's tiers are made: an entry of `deployments.app.TIERS`.

    make: a tier from its settings, the handle of its replicas, the seconds to wait for a first token, and who receives late
    readings. bind: `module:function`, imported only when needed, that makes the Ray Serve application of a tier's replicas
    from its settings and the seconds that running answers get at shutdown; empty: the engine has no replicas here.
    """

    make: Callable[[Any, Any, float, LateReadings | None], Tier]
    bind: str = ""


def event(data: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(data).encode() + b"\n\n"
