"""The ingress's end of a service that Ray Serve runs: a tier's handle or lane, and its failures, for bodies of another kind."""

from typing import Any

from deployments.beside_loop import by_size
from deployments.replicas.replica_count import running_replicas
from deployments.services.service import Service
from deployments.tiers.serve_tier import CallPolicy, ServeTier, cold_s, lane_of
from router.service_settings import VllmService as Settings
from router.services.body import ServiceRequest


class ServeService(Service):
    """replica: the way to its replicas, which are called by the service's name."""

    def __init__(self, replica: ServeTier) -> None:
        self.name, self.replica, self.health = replica.name, replica, replica.health

    async def ask(self, asked: ServiceRequest, call_id: str = "") -> bytes:
        raw = await by_size(asked.named, self.name)
        _, text = await self.replica.send(asked.kind, raw.decode(), "", None, call_id)
        return text.encode()

    async def replicas(self) -> int:
        return await self.replica.replicas()

    async def close(self) -> None:
        await self.replica.close()


def make(settings: Settings, handle: Any, timeout_s: float) -> Service:
    """A service of vLLM replicas behind `handle`: see `service.Engine`."""
    running = running_replicas(handle.app_name, handle.deployment_name)
    policy = CallPolicy(timeout_s, sleeps=settings.sleeps, cold_s=cold_s(settings))
    return ServeService(ServeTier(settings.name, handle, running, policy, None, lane_of(settings, handle)))
