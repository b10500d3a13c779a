"""A replica's places for calls, as Ray Serve counts them: calls on lanes take the same places as those that come by handle.

So `max_ongoing` holds for both together, Serve waits for both before it stops a replica, and sees both where it scales by what
replicas report. These are private parts of Ray 2.60; where they are not as expected, only calls on lanes are counted.
"""

import asyncio
import logging
from contextlib import AbstractAsyncContextManager
from typing import Any

from ray.serve._private.common import RequestMetadata

from deployments.lane.places import CountedPlaces, Places

log = logging.getLogger("stepdown")


def own_replica() -> Any:
    """What Serve runs around the replica that this process is; None: this process is none."""
    import ray

    worker = ray._private.worker.global_worker  # Ray has no public way to it
    own = worker.actors.get(worker.actor_id) if worker.actor_id else None
    return getattr(own, "_replica_impl", None)


class ServePlaces:
    """replica: Serve's own object, which must live on this event loop. Raises AttributeError, TypeError, RuntimeError."""

    def __init__(self, replica: Any) -> None:
        self.replica = replica
        self.call = RequestMetadata(request_id="lane", internal_request_id="lane")
        if replica._event_loop is not asyncio.get_running_loop():
            raise RuntimeError("it runs on another event loop")
        self.free(), self.taken(), replica._start_request  # they must be there

    def free(self) -> bool:
        return bool(self.replica._can_accept_request(self.call))

    def one(self) -> AbstractAsyncContextManager[None]:
        held: AbstractAsyncContextManager[None] = self.replica._start_request(self.call)
        return held

    def taken(self) -> int:
        return int(self.replica.get_num_ongoing_requests())


def places(most: float) -> Places:
    """The places of the replica that this process is. most: calls on lanes, where Serve does not count them."""
    replica = own_replica()
    if replica is None:
        return CountedPlaces(most)
    try:
        return ServePlaces(replica)
    except (AttributeError, TypeError, RuntimeError) as error:
        log.info("calls on lanes are counted apart from those by handle: %s", error)
        return CountedPlaces(most)
