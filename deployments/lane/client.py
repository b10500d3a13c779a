"""A straight line from the ingress to the one replica of a tier on the same machine: frames (frames.py) over a Unix socket.

Ray Serve's handle chooses among replicas, queues, and crosses processes by gRPC: a quarter of the processor's time that a short
request takes. Where there is nothing to choose, a tier of one replica beside the ingress, calls go this way instead; a lane that
is not there yet, or has broken, costs nothing: the call goes by the handle, as all calls of other tiers do.
"""

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from deployments.lane.frames import Connection, Shown
from router.types import Path

log = logging.getLogger("stepdown")
Where = Callable[[], Awaitable[tuple[str, str]]]
IDLE = 128  # connections kept open while nobody asks
AGAIN_S, ELSEWHERE_S = 2.0, 60.0  # before a lane is looked for again: one that broke, one on another machine


class LaneLost(ConnectionError):
    """The replica is gone, or failed in a way of which it could not tell."""


class Call:
    """What a connection answers to one request: (status, text, reading), as a handle's generator. Raises LaneLost."""

    def __init__(self, line: "Line") -> None:
        self.line: Line | None = line
        """None: it is over, and the connection is another's"""
        self.items: deque[Shown] = deque()
        self.waiter: asyncio.Future[None] | None = None
        self.lost = False

    def __aiter__(self) -> "Call":
        return self

    async def __anext__(self) -> Shown:
        while not self.items:
            if self.lost:
                raise LaneLost("the replica's end of the lane was closed")
            if self.line is None:
                raise StopAsyncIteration
            self.waiter = asyncio.get_running_loop().create_future()
            await self.waiter
        return self.items.popleft()

    def cancel(self) -> None:
        """Give it up: the replica stops at once."""
        if self.line:
            self.line.transport.abort()
            self.over()

    def over(self, lost: bool = False) -> None:
        if self.line:
            self.line.lane.busy -= 1
        self.line, self.lost = None, lost
        self.wake()

    def wake(self) -> None:
        if self.waiter and not self.waiter.done():
            self.waiter.set_result(None)


class Line(Connection):
    """One connection to a replica."""

    def __init__(self, lane: "Lane") -> None:
        super().__init__()
        self.lane = lane
        self.call: Call | None = None

    def ask(self, path: Path, raw: str, call_id: str, missed: Sequence[str], hint: str) -> Call:
        body = raw.encode()
        self.call = Call(self)
        if self.transport.is_closing():  # since it was handed out: nobody would tell of it any more
            self.call.over(lost=True)
        self.transport.write(json.dumps([path, len(body), call_id, missed, hint]).encode() + b"\n" + body)
        return self.call

    def size(self, head: list[Any]) -> int:
        return int(head[1]) + int(head[2]) if len(head) > 1 else 0

    def came(self, head: list[Any], body: bytes) -> None:
        call = self.call
        if call is None or call.line is not self:
            self.transport.abort()
        elif len(head) > 1:
            size = head[1]
            call.items.append((head[0], body[:size].decode(), body[size:].decode()))
            call.wake()
        else:
            self.call = None
            call.over()
            self.transport.close() if head else self.lane.put_back(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self.call and self.call.line is self:
            self.call.over(lost=True)


class Lane:
    """To the replica of one tier. where: asks it for its machine and its socket. here: this process's machine.

    limit: calls at one time, as many as the tier takes; what is more goes by the handle, which queues it.
    """

    def __init__(self, where: Where, here: str, limit: float = float("inf"), clock: Callable[[], float] = time.monotonic) -> None:
        self.where, self.here, self.limit, self.clock = where, here, limit, clock
        self.path = ""
        self.free: list[Line] = []
        self.busy = 0
        self.looking: asyncio.Task[None] | None = None
        self.next_look_s = float("-inf")

    async def line(self) -> Line | None:
        """A connection for one call, which must be asked at once; None: the handle is the way, for now."""
        if self.busy >= self.limit:
            return None
        while self.free:
            line = self.free.pop()
            if not line.transport.is_closing():
                self.busy += 1
                return line
        if not self.path:
            self.look()
            return None
        return await self.another()

    async def another(self) -> Line | None:
        """A new connection. Its place is taken before it is there: others may ask meanwhile."""
        self.busy += 1
        line = None
        try:
            line = await self.connected(self.path)
        except BlockingIOError:
            log.debug("more connections at one stroke than may wait")
        except OSError:
            self.path = ""
            self.look()
        finally:
            self.busy -= line is None
        return line

    async def connected(self, path: str) -> "Line":
        _, line = await asyncio.get_running_loop().create_unix_connection(lambda: Line(self), path)
        return line

    def put_back(self, line: Line) -> None:
        if len(self.free) < IDLE:
            self.free.append(line)
        else:
            line.transport.close()

    def look(self) -> None:
        """Beside the requests: Serve answers when there is a replica."""
        if (self.looking is None or self.looking.done()) and self.clock() >= self.next_look_s:
            self.looking = asyncio.create_task(self.find())

    async def find(self) -> None:
        wait_s = AGAIN_S
        try:
            machine, path = await self.where()
            if machine != self.here or not path:
                wait_s = ELSEWHERE_S
            else:
                self.put_back(await self.connected(path))
                self.path = path
        except OSError as error:  # one machine, but not one file system: containers
            wait_s = ELSEWHERE_S
            log.info("no lane: %s", error)
        except Exception as error:  # noqa: BLE001 Ray's errors are many; whatever it is, the handle is there
            log.debug("no lane: %s", error)
        self.next_look_s = self.clock() + wait_s

    def close(self) -> None:
        if self.looking:
            self.looking.cancel()
        for line in self.free:
            line.transport.close()
        self.free.clear()
