"""Counts the running replicas of each deployment, as Serve's controller reports them: at most once a second, for all callers.

`serve.status()` builds its answer anew in the process that asks, from every setting of every deployment: 0.1 to 0.5 s in which
no request of that process goes on. The details that it starts from are enough.
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
    """The details that `serve.status()` starts from. Raises RayError, RayServeException."""
    client = _get_global_client(raise_if_no_controller_running=False)
    return client.get_serve_details() if client else {}


def states(found: Details) -> dict[tuple[str, str], Counter[str]]:
    """(application, deployment) -> number of replicas in each state: `STARTING`, `RUNNING`, ..."""
    return {
        (application, deployment): Counter(str(getattr(r["state"], "value", r["state"])) for r in its.get("replicas", ()))
        for application, app in found.get("applications", {}).items()
        for deployment, its in app.get("deployments", {}).items()
    }


class ReplicaCounts:
    """The counts of all deployments. ask: may take a while and runs in a thread. clock: seconds that never jump."""

    def __init__(self, ask: Callable[[], Details] = details, clock: Callable[[], float] = time.monotonic) -> None:
        self.ask, self.clock = ask, clock
        self.lock = threading.Lock()
        self.running: Counter[tuple[str, str]] = Counter()
        self.at = float("-inf")

    @property
    def fresh(self) -> bool:
        return self.clock() - self.at < FRESH_S

    def look(self) -> None:
        """A caller that comes while another is looking waits and takes what that one finds."""
        with self.lock:
            if not self.fresh:
                found = states(self.ask())
                self.running = Counter({deployment: replicas["RUNNING"] for deployment, replicas in found.items()})
                self.at = self.clock()

    async def count(self, application: str, deployment: str) -> int:
        return (await self.all())[application, deployment]

    async def all(self) -> Counter[tuple[str, str]]:
        """(application, deployment) -> running replicas."""
        if not self.fresh:
            await asyncio.to_thread(self.look)
        return self.running


COUNTS = ReplicaCounts()  # one for the process: one look serves all its tiers


def running_replicas(application: str, deployment: str, counts: ReplicaCounts = COUNTS) -> Callable[[], Awaitable[int]]:
    return lambda: counts.count(application, deployment)
