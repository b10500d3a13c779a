"""The lanes to all replicas of one tier: which there are, and which one gets a call.

Replicas come and go as Ray Serve says. A call goes to the first replica in the order of choice that has a lane and takes more
calls. Where the first one cannot be reached by lane, the call is the handle's, as it is where all are full: the handle queues.
"""

import ssl
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple, Protocol

from deployments.lane.address import Address
from deployments.lane.client import Lane, LaneConnection, nothing


class Running(NamedTuple):
    """A replica that runs, as Serve says."""

    name: str
    address: Address | None
    """None: it told none, and is reached only through the handle"""
    limit: float = float("inf")
    """calls that it takes at a time"""
    tell: Callable[[int], None] = nothing
    """hears 1 when a call by lane begins and -1 when it ends"""


class Choice(Protocol):
    """Who chooses among replicas."""

    def order(self, names: Sequence[str], call_id: str, hint: str, queue: Callable[[str], float]) -> Iterable[str]:
        """Those that may have the call, the first choice first. queue: calls at a replica."""

    def routed(self, call_id: str, hint: str, name: str) -> None:
        """The call is sent to this replica."""


class Status(NamedTuple):
    """One replica's lane."""

    replica: str
    state: str
    """open; handle: it is reached only through the handle; lost: it could be reached once, and no longer"""
    busy: int
    """calls that this process has on it"""
    calls: int
    """calls that went by it since it was made"""


class Lanes:
    """here: this process's machine. known: the running replicas, the same object until they change; None: not known.

    context: for TLS to other machines.
    """

    def __init__(
        self, here: str, known: Callable[[], Sequence[Running] | None], choice: Choice, context: ssl.SSLContext | None = None
    ) -> None:
        self.here, self.known, self.choice, self.context = here, known, choice, context
        self.seen: Sequence[Running] | None = None
        self.names: list[str] = []
        self.lanes: dict[str, Lane] = {}
        self.sent: dict[str, int] = {}
        """replica -> calls by its lane"""
        self.calls = 0
        """by lane since the start"""

    async def connection(self, call_id: str = "", hint: str = "", refused: Collection[str] = ()) -> LaneConnection | None:
        """A connection to the replica of choice, for one call, which must be made at once; None: use the handle.

        refused: replicas that have refused this call, being full.
        """
        self.look()
        if not self.names:  # the choice is Serve's
            return None
        for name in self.choice.order(self.names, call_id, hint, self.queue):
            lane = self.lanes.get(name)
            if lane is None:
                return None
            if lane.gone:
                lane.look()
            elif not lane.way:
                lane.look()
                return None
            elif name not in refused and (connection := await lane.connection()):
                self.calls += 1
                self.sent[name] = self.sent.get(name, 0) + 1
                self.choice.routed(call_id, hint, name)
                return connection
        return None

    def queue(self, name: str) -> float:
        lane = self.lanes.get(name)
        return lane.queue if lane else 0.0

    def look(self) -> None:
        """Take in which replicas run now."""
        if (found := self.known()) is self.seen:
            return
        self.seen = found
        running = {replica.name: replica for replica in found or ()}
        for name in [name for name in self.lanes if name not in running]:
            self.lanes.pop(name).close()
            self.sent.pop(name, None)
        for name, replica in running.items():
            if name in self.lanes:
                self.lanes[name].limit = replica.limit
            elif replica.address:
                made = Lane(name, replica.address, self.here, replica.limit, replica.tell, self.context)
                self.lanes[name] = made
                made.look()
        self.names = list(running)

    def status(self) -> list[Status]:
        """Each running replica's lane."""
        return [self.status_of(name) for name in self.names]

    def status_of(self, name: str) -> Status:
        lane = self.lanes.get(name)
        state = "open" if lane and lane.way else ("lost" if lane and lane.gone else "handle")
        return Status(name, state, lane.busy if lane else 0, self.sent.get(name, 0))

    def close(self) -> None:
        for lane in self.lanes.values():
            lane.close()
        self.lanes.clear()
        self.known, self.names = lambda: None, []
