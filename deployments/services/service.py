"""What every service can do: answer one request. Bodies and answers are bytes of JSON."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from deployments.replicas.replica_health import ReplicaHealth
from router.services.body import ServiceRequest


class Service(Protocol):
    """One service. An engine implements `ask`, and overrides a default below where it can do better."""

    name: str
    health: ReplicaHealth | None = None
    """which of its replicas are ill; None: they cannot be told apart"""

    async def ask(self, asked: ServiceRequest, call_id: str = "") -> bytes:
        """The whole answer, under whatever `model`. Raises RequestFailed."""
        ...

    async def replicas(self) -> int:
        """How many of its replicas run."""
        return 1

    async def close(self) -> None:
        """Let go of what it holds open; no request is running any more."""
        return None


@dataclass(frozen=True, slots=True)
class Engine:
    """How an engine's services are made: an entry of `deployments.app.SERVICES`.

    make: a service from its settings, the handle of its replicas, and the seconds to wait for an answer. bind: as in
    `deployments.tiers.tier.Engine`.
    """

    make: Callable[[Any, Any, float], Service]
    bind: str = ""
