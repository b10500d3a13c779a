"""Ray Serve's choice of a replica for tiers whose prefix caches are worth coming back to (router/traffic/affinity.py).

We use none of Ray 2.60's own. `PrefixCacheAffinityRouter` reads `messages` off an object, and we send JSON; it also asks an
actor several times for each request with `ray.get`, which blocks the event loop that all requests share.
`ConsistentHashRouter` needs another package, and stays with its replica however long the queue there is.
"""

import random
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from deployments.replicas.replica_health import health_of
from router.traffic.affinity import Affinity

CALL_ID = 2  # its place among the arguments of `openai`
HINT = 4  # likewise


def argument(request: PendingRequest | None, place: int) -> str:
    return str(request.args[place]) if request is not None and len(request.args) > place else ""


class AffineRouter(RequestRouter):
    """Serve makes one in each process that has a handle, and calls it in one thread."""

    def initialize_state(self, **kwargs: Any) -> None:
        """slack: requests by which the preferred replica's queue may be longer than another's."""
        self.affinity = Affinity(kwargs.get("slack", 8.0))
        self.health = health_of(self._deployment_id.name)

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Groups, tried in turn: Serve passes over full and dead replicas, and waits a while after the last group."""
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True
        by_name = {str(replica.replica_id.unique_id): replica for replica in candidate_replicas}
        names = self.health.choice(list(by_name), argument(pending_request, CALL_ID))
        well = [by_name[name] for name in names]
        hint = argument(pending_request, HINT)
        if not hint or len(names) < 2:
            return [two_of(well), well]
        first = self.affinity.preferred(hint, names, lambda name: self.queue(by_name[name]))
        return [*([by_name[name]] for name in first), well]

    def queue(self, replica: RunningReplica) -> float:
        """Its requests as far as this process knows: what the replica reported last, and what was sent since."""
        return float(self.replica_queue_len_cache.get(replica.replica_id) or 0)

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: object) -> None:
        self.health.routed(argument(pending_request, CALL_ID), str(replica_id.unique_id))
        if hint := argument(pending_request, HINT):
            self.affinity.answered(hint, str(replica_id.unique_id))


def two_of(replicas: list[RunningReplica]) -> list[RunningReplica]:
    """Two at random; Serve takes the one with the shorter queue."""
    return random.sample(replicas, min(2, len(replicas)))
