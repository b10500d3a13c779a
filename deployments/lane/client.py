"""The ingress's end of a lane (see the package): connections to the one replica of a tier, and the calls on them."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from deployments.lane.frames import Connection, Item

log = logging.getLogger("stepdown")
Where = Callable[[], Awaitable[tuple[str, str]]]
IDLE = 128  # idle connections kept open
RETRY_S = 2.0  # before a lane that broke is looked for again
CLOSED = "the replica's end of the lane was closed"
ELSEWHERE_S = 60.0  # the same, where the replica is on another machine


class LaneLost(ConnectionError):
    """The replica is gone, or failed in a way that it could not report."""


class LaneCall:
    """The items that answer one call: (status, text, measurement), as a handle's generator. Raises LaneLost."""

    def __init__(self, connection: "LaneConnection") -> None:
        self.connection: LaneConnection | None = connection
        """None: the call is over, and the connection belongs to another"""
        self.items: asyncio.Queue[Item | LaneLost | None] = asyncio.Queue()
        """ends with None, or with the error"""

    def __aiter__(self) -> "LaneCall":
        return self

    async def __anext__(self) -> Item:
        item = await self.items.get()
        if item is None:
            raise StopAsyncIteration
        if isinstance(item, LaneLost):
            raise item
        return item

    def cancel(self) -> None:
        """Give the call up: the replica stops at once."""
        if self.connection:
            self.connection.transport.abort()
            self.over()

    def over(self, error: LaneLost | None = None) -> None:
        if self.connection:
            self.connection.lane.busy -= 1
        self.connection = None
        self.items.put_nowait(error)


class LaneConnection(Connection):
    """One connection to a replica."""

    def __init__(self, lane: "Lane") -> None:
        super().__init__()
        self.lane = lane
        self.call: LaneCall | None = None

    def ask(self, path: str, raw: str, call_id: str, missed: Sequence[str], hint: str) -> LaneCall:
        body = raw.encode()
        self.call = LaneCall(self)
        if self.transport.is_closing():  # since it was handed out: no `connection_lost` will tell the call
            self.call.over(LaneLost(CLOSED))
        self.transport.write(json.dumps([path, len(body), call_id, missed, hint]).encode() + b"\n" + body)
        return self.call

    def body_size(self, head: list[Any]) -> int:
        return int(head[1]) + int(head[2]) if len(head) > 1 else 0

    def frame_received(self, head: list[Any], body: bytes) -> None:
        call = self.call
        if call is None or call.connection is not self:
            self.transport.abort()
        elif len(head) > 1:
            size = head[1]
            call.items.put_nowait((head[0], body[:size].decode(), body[size:].decode()))
        else:
            self.call = None
            call.over()
            self.transport.close() if head else self.lane.put_back(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self.call and self.call.connection is self:
            self.call.over(LaneLost(CLOSED))


class Lane:
    """All connections to the replica of one tier. where: asks it for its machine and socket. here: this process's machine.

    limit: calls at a time, as many as the tier takes; further calls go through the handle, which queues them.
    """

    def __init__(self, where: Where, here: str, limit: float = float("inf"), clock: Callable[[], float] = time.monotonic) -> None:
        self.where, self.here, self.limit, self.clock = where, here, limit, clock
        self.path = ""
        self.free: list[LaneConnection] = []
        self.busy = 0
        self.looking: asyncio.Task[None] | None = None
        self.next_look_s = float("-inf")

    async def connection(self) -> LaneConnection | None:
        """A connection for one call, which must be made at once; None: use the handle for now."""
        if self.busy >= self.limit:
            return None
        while self.free:
            connection = self.free.pop()
            if not connection.transport.is_closing():
                self.busy += 1
                return connection
        if not self.path:
            self.look()
            return None
        return await self.another()

    async def another(self) -> LaneConnection | None:
        """A new connection. It counts as busy before it is there, as other calls may come meanwhile."""
        self.busy += 1
        connection = None
        try:
            connection = await self.connect(self.path)
        except BlockingIOError:
            log.debug("more connections at once than the socket's queue holds")
        except OSError:
            self.path = ""
            self.look()
        finally:
            self.busy -= connection is None
        return connection

    async def connect(self, path: str) -> LaneConnection:
        _, connection = await asyncio.get_running_loop().create_unix_connection(lambda: LaneConnection(self), path)
        return connection

    def put_back(self, connection: LaneConnection) -> None:
        if len(self.free) < IDLE:
            self.free.append(connection)
        else:
            connection.transport.close()

    def look(self) -> None:
        """Look for the lane in the background: Serve answers only when there is a replica."""
        if (self.looking is None or self.looking.done()) and self.clock() >= self.next_look_s:
            self.looking = asyncio.create_task(self.find())

    async def find(self) -> None:
        wait_s = RETRY_S
        try:
            machine, path = await self.where()
            if machine != self.here or not path:
                wait_s = ELSEWHERE_S
            else:
                self.put_back(await self.connect(path))
                self.path = path
        except OSError as error:  # the same machine, but not the same file system: containers
            wait_s = ELSEWHERE_S
            log.info("no lane: %s", error)
        except Exception as error:  # noqa: BLE001 - Ray raises many kinds; the handle still works
            log.debug("no lane: %s", error)
        self.next_look_s = self.clock() + wait_s

    def close(self) -> None:
        if self.looking:
            self.looking.cancel()
        for connection in self.free:
            connection.transport.close()
        self.free.clear()
