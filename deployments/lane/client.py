"""The ingress's end of a lane (see the package): connections to one replica; call.py has the calls on them."""

import asyncio
import json
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from deployments.lane.address import Address, private
from deployments.lane.call import CLOSED, LaneCall, LaneFull, LaneLost
from deployments.lane.frames import CLOSING, FULL, Connection, size_of
from deployments.lane.probes import watch

log = logging.getLogger("stepdown")
IDLE = 128  # idle connections kept open
RETRY_S = 2.0  # before a lane that broke is looked for again
UNREACHED_S = 60.0  # the same, where the replica was never reached: containers, or networks that do not meet
CONNECT_S = 5.0  # that a connection to another machine may take
FULL_S = 0.05  # for which a replica that refused a call gets none
TOLD_S = 10.0  # for which a replica's count of its calls is believed, as Serve believes its own

Connect = Callable[[], Awaitable["LaneConnection"]]


class LaneConnection(Connection):
    """One connection to a replica. token: its first line; empty: it needs none."""

    def __init__(self, lane: "Lane", token: str = "") -> None:
        super().__init__()
        self.lane, self.token = lane, token
        self.call: LaneCall | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        watch(transport)
        if self.token:
            self.transport.write(json.dumps([self.token]).encode() + b"\n")

    def ask(self, path: str, raw: str, call_id: str, missed: Sequence[str], hint: str) -> LaneCall:
        body = raw.encode()
        self.call = LaneCall(self)
        if self.transport.is_closing():  # since it was handed out: no `connection_lost` will tell the call
            self.call.over(LaneLost(CLOSED))
        self.transport.write(json.dumps([path, len(body), call_id, missed, hint]).encode() + b"\n" + body)
        return self.call

    def body_size(self, head: list[Any]) -> int:
        return size_of(head[1]) + size_of(head[2]) if len(head) > 1 else 0

    def frame_received(self, head: list[Any], body: bytes) -> None:
        call = self.call
        if call is None or call.connection is not self:
            self.transport.abort()
        elif len(head) > 1:
            call.came(head[0], body, head[1])
        else:
            self.call = None
            self.end(call, head[0] if head else 0)

    def end(self, call: LaneCall, number: int) -> None:
        """number: of other calls at the replica, CLOSING or FULL."""
        call.over(LaneFull("the replica is full") if number == FULL else None)
        if number == CLOSING:
            self.transport.close()
            self.lane.lost()
        else:
            self.lane.told(number)
            self.lane.put_back(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self.call and self.call.connection is self:
            self.call.over(LaneLost(CLOSED))
            self.lane.lost()
        elif self in self.lane.free:
            self.lane.free.remove(self)
            self.lane.lost()


def nothing(by: int) -> None:
    """Where nobody counts."""


class Lane:
    """All connections to one replica. name: the replica's. here: this process's machine. limit: calls that the replica takes.

    count: hears 1 when a call begins and -1 when it ends. context: for TLS; None: only where the replica asks for none. clock:
    seconds that never jump.
    """

    def __init__(
        self,
        name: str,
        address: Address,
        here: str,
        limit: float = float("inf"),
        count: Callable[[int], None] = nothing,
        context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.address, self.limit, self.count, self.clock = name, address, limit, count, clock
        self.ways = self.ways_from(here, context)
        """how the replica may be reached, the best way first; empty: only through the handle"""
        self.way: Connect | None = None
        """the one that works; None: none does, or none was found yet"""
        self.gone = False
        """it could be reached once, and no longer"""
        self.free: list[LaneConnection] = []
        self.busy = 0
        self.others, self.others_until_s = 0.0, float("-inf")
        """calls that it has beside ours, as it told last"""
        self.full_until_s = float("-inf")
        self.looking: asyncio.Task[None] | None = None
        self.next_look_s = float("-inf")
        self.closed = False

    def ways_from(self, here: str, context: ssl.SSLContext | None) -> list[Connect]:
        """By its socket on this machine; by TCP with TLS, or without where the network is private."""
        address = self.address
        ways: list[Connect] = []
        if address.path and address.machine == here:
            ways.append(partial(self.by_socket, address.path))
        if address.port and address.token and (context if address.encrypted else private(address.host)):
            ways.append(partial(self.by_network, context if address.encrypted else None))
        return ways

    @property
    def queue(self) -> float:
        """Calls at the replica as far as this process knows."""
        return self.busy + (self.others if self.others and self.clock() < self.others_until_s else 0.0)

    @property
    def full(self) -> bool:
        """It would refuse a call."""
        return self.busy >= self.limit or (self.full_until_s > 0 and self.clock() < self.full_until_s)

    def told(self, number: int) -> None:
        """The replica told how many other calls it has, or that it is full."""
        now_s = self.clock()
        if number == FULL:
            self.full_until_s = now_s + FULL_S
        else:
            self.others, self.others_until_s = max(0.0, number - self.busy), now_s + TOLD_S

    def began(self) -> None:
        self.busy += 1
        self.count(1)

    def ended(self) -> None:
        self.busy -= 1
        self.count(-1)

    async def connection(self) -> LaneConnection | None:
        """A connection for one call, which must be made at once; None: use another way for now."""
        if self.full:
            return None
        while self.free:
            connection = self.free.pop()
            if not connection.transport.is_closing():
                self.began()
                return connection
        if not self.way:
            self.look()
            return None
        return await self.another(self.way)

    async def another(self, way: Connect) -> LaneConnection | None:
        """A new connection. It counts as busy before it is there, as other calls may come meanwhile."""
        self.began()
        connection = None
        try:
            connection = await way()
        except BlockingIOError:
            log.debug("more connections at once than the socket's queue holds")
        except OSError:
            self.lost()
        finally:
            if connection is None:
                self.ended()
        return connection

    async def by_socket(self, path: str) -> LaneConnection:
        _, connection = await asyncio.get_running_loop().create_unix_connection(lambda: LaneConnection(self), path)
        return connection

    async def by_network(self, context: ssl.SSLContext | None) -> LaneConnection:
        """Raises OSError, of which TimeoutError is one."""
        address = self.address
        async with asyncio.timeout(CONNECT_S):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: LaneConnection(self, address.token), address.host, address.port, ssl=context
            )
        return connection

    def put_back(self, connection: LaneConnection) -> None:
        if len(self.free) < IDLE and not self.closed:
            self.free.append(connection)
        else:
            connection.transport.close()

    def lost(self) -> None:
        """The replica ended a connection, or takes no new one: others get its calls, unless it can be reached again."""
        self.way, self.gone = None, True
        if (now_s := self.clock()) >= self.next_look_s:
            self.look()
            self.next_look_s = now_s + RETRY_S  # also where it can be reached, but ends each connection at once

    def look(self) -> None:
        """Look for a way in the background."""
        if (self.looking is None or self.looking.done()) and self.ways and self.clock() >= self.next_look_s and not self.closed:
            self.looking = asyncio.create_task(self.find())

    async def find(self) -> None:
        for way in self.ways:
            try:
                self.put_back(await way())
            except OSError as error:
                log.info("no lane to replica %s: %s", self.name, error)
            else:
                self.way, self.gone = way, False
                return
        self.next_look_s = self.clock() + (RETRY_S if self.gone else UNREACHED_S)

    def close(self) -> None:
        """Take no more calls; those under way go on."""
        self.closed = True
        if self.looking:
            self.looking.cancel()
        for connection in self.free:
            connection.transport.close()
        self.free.clear()
