"""The running replicas of a deployment as the handle in this process knows them, and counts of calls that go past that handle.

Serve tells every handle which replicas run, with what each told when it became ready (`PlainServer.record_replica_metadata`): so
lanes need no asking, and see new, draining and dead replicas as soon as Serve does. Serve's scaling counts, per replica, the
calls that a handle has there; calls on lanes are added to the same count. Both are private parts of Ray 2.60. Where they are not
as expected nothing is known, and calls go by the handle.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from deployments.lane.address import address_of
from deployments.lane.lanes import Running

log = logging.getLogger("stepdown")
LANE = "stepdown_lane"  # the name under which replicas tell their address


class ServeReplicas:
    """handle: a deployment's, with its router. tell: hears, once, why nothing is known."""

    def __init__(self, handle: Any, tell: Callable[[str], None] = log.warning) -> None:
        self.handle, self.tell = handle, tell
        self.seen: Any = None
        """Serve's own list, from which `found` was read"""
        self.size = 0
        self.found: Sequence[Running] | None = None
        self.odd = False
        """the private parts are not as expected"""

    def running(self) -> Sequence[Running] | None:
        """The replicas, the same object until they change; None: not known."""
        if self.odd:
            return None
        try:
            router = self.handle._router._asyncio_router
            serving = router._request_router
            if serving is None:  # Serve has not told the handle yet
                return None
            replicas = serving._replicas
            if replicas is not self.seen or len(replicas) != self.size:
                counts = router._metrics_manager
                counts.inc_num_running_requests_for_replica, counts.dec_num_running_requests_for_replica  # noqa: B018 both are there
                self.read(replicas)
            return self.found
        except (AttributeError, TypeError, ValueError) as error:
            self.odd, self.found = True, None
            self.tell(f"no lanes to {getattr(self.handle, 'deployment_name', '?')}: Ray Serve is not as expected ({error})")
            return None

    def read(self, replicas: Any) -> None:
        """Take in Serve's list. It changes in another thread at times, so it is copied first."""
        copied = dict(replicas)
        self.found = [
            Running(
                str(replica_id.unique_id),
                address_of(replica.replica_metadata.get(LANE) or {}),
                replica.max_ongoing_requests,
                partial(self.count, replica_id),
            )
            for replica_id, replica in copied.items()
        ]
        self.seen, self.size = replicas, len(copied)

    def count(self, replica_id: Any, by: int) -> None:
        """A call on a lane to this replica began (1) or ended (-1), maybe after the replica was taken from the list."""
        counts = self.handle._router._asyncio_router._metrics_manager
        change = counts.inc_num_running_requests_for_replica if by > 0 else counts.dec_num_running_requests_for_replica
        change(replica_id)
