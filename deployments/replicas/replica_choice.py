"""Ray Serve's choice of a replica for tiers with a prefix cache worth coming back to (router/traffic/affinity.py).

Why not one of Ray 2.60's own: `PrefixCacheAffinityRouter` reads `messages` off an object, and we send JSON; it also asks an
actor several times for each request with `ray.get`, which stands still the event loop that all requests share.
`ConsistentHashRouter` needs another package, and keeps to its replica however long the queue there is.
"""

import random

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from deployments.replicas import replica_health
from router.traffic.affinity import Affinity

CALL, HINT = 2, 4  # the places of `call_id` and `hint` among the arguments of `openai`


def call_in(request: PendingRequest | None) -> str:
    return str(request.args[CALL]) if request is not None and len(request.args) > CALL else ""


def hint_in(request: PendingRequest | None) -> str:
    return str(request.args[HINT]) if request is not None and len(request.args) > HINT else ""


class AffineRouter(RequestRouter):
    """Serve makes one in each process that has a handle, and calls it in one thread."""

    def initialize_state(self, slack: float = 8.0) -> None:
        self.affinity = Affinity(slack)
        self.health = replica_health.of(self._deployment_id.name)

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Ranks, tried in turn: full and dead ones are passed over by Serve, which waits a while after the last."""
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True
        by_name = {str(replica.replica_id.unique_id): replica for replica in candidate_replicas}
        names, hint = self.health.choice(list(by_name), call_in(pending_request)), hint_in(pending_request)
        well = [by_name[name] for name in names]
        if not hint or len(names) < 2:
            return [two_of(well), well]
        first = self.affinity.preferred(hint, names, lambda name: self.queue(by_name[name]))
        return [*([by_name[name]] for name in first), well]

    def queue(self, replica: RunningReplica) -> float:
        """Requests that it has, as far as is known here: what it said last, and what was sent since."""
        return float(self.replica_queue_len_cache.get(replica.replica_id) or 0)

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: object) -> None:
        self.health.routed(call_in(pending_request), str(replica_id.unique_id))
        if hint := hint_in(pending_request):
            self.affinity.answered(hint, str(replica_id.unique_id))


def two_of(replicas: list[RunningReplica]) -> list[RunningReplica]:
    """By chance; Serve takes the one with the shorter queue."""
    return random.sample(replicas, min(2, len(replicas)))
