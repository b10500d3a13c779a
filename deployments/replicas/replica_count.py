"""How many replicas of each deployment run, as Serve's controller says; once a second at most, however many ask.

`serve.status()` builds its answer anew in the process that asks, from every setting of every deployment: 0.1 to 0.5 s in which
no request of that process goes on. The figures it begins with are enough.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ray.serve.context import _get_global_client

FRESH_S = 1.0
Details = Mapping[str, Any]


def details() -> Details:
    """What `serve.status()` is made of. Raises RayError, RayServeException."""
    client = _get_global_client(raise_if_no_controller_running=False)
    return client.get_serve_details() if client else {}


def states(found: Details) -> dict[tuple[str, str], Counter[str]]:
    """(application, deployment) -> how many replicas are in which state: `STARTING`, `RUNNING`, ..."""
    return {
        (application, deployment): Counter(str(getattr(r["state"], "value", r["state"])) for r in its.get("replicas", ()))
        for application, app in found.get("applications", {}).items()
        for deployment, its in app.get("deployments", {}).items()
    }


def counted(found: Details) -> Counter[tuple[str, str]]:
    """(application, deployment) -> replicas that run."""
    return Counter({deployment: replicas["RUNNING"] for deployment, replicas in states(found).items()})


class Count:
    """Of all deployments. ask: may take a while and runs in a thread. ticks: seconds that never jump."""

    def __init__(self, ask: Callable[[], Details] = details, ticks: Callable[[], float] = time.monotonic) -> None:
        self.ask, self.ticks = ask, ticks
        self.lock = threading.Lock()
        self.found: Counter[tuple[str, str]] = Counter()
        self.at = float("-inf")

    @property
    def fresh(self) -> bool:
        return self.ticks() - self.at < FRESH_S

    def look(self) -> None:
        """Who comes while another looks takes what that one finds."""
        with self.lock:
            if not self.fresh:
                self.found, self.at = counted(self.ask()), self.ticks()

    async def of(self, application: str, deployment: str) -> int:
        if not self.fresh:
            await asyncio.to_thread(self.look)
        return self.found[application, deployment]


COUNT = Count()  # one for the process: all its tiers are asked about together


def running_replicas(application: str, deployment: str, count: Count = COUNT) -> Callable[[], Awaitable[int]]:
    return lambda: count.of(application, deployment)
