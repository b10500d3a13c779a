"""A straight line from the ingress to the one replica of a tier on the same machine: frames over a Unix socket.

Ray Serve's handle chooses among replicas, queues, and crosses processes by gRPC: a fifth of the processor's time that a short
request takes. Where there is nothing to choose, a tier of one replica beside the ingress, calls go this way instead; a lane that
is not there yet, or has broken, costs nothing: the call goes by the handle, as all calls of other tiers do.

A connection carries one call at a time. Asked: a line of JSON, `[path, bytes of the body, call id, missed, hint]`, and the
body. Answered: items, each a line `[status, bytes of the text, bytes of the reading]` and both; an empty list after the last,
or `[0]` where the replica takes no more calls. Who closes the connection gives the call up. The folder of the sockets belongs
to this user alone, so nobody else may call.
"""

import asyncio
import json
import logging
import os
import socket
import stat
import tempfile
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from pathlib import Path as File
from typing import Any

from deployments.gathered import Shown
from router.types import Path

log = logging.getLogger("stepdown")
Answer = Callable[[Path, str, str, Sequence[str], str], AsyncGenerator[Shown]]
Where = Callable[[], Awaitable[tuple[str, str]]]
END, GONE = b"[]\n", b"[0]\n"
IDLE = 128  # connections kept open while nobody asks
BACKLOG = 4096  # connections that may wait to be taken: of a Unix socket more are refused at once
STALE_S = 60.0  # a socket at which nobody listens for that long is what a killed replica left behind
AGAIN_S, ELSEWHERE_S = 2.0, 60.0  # before a lane is looked for again: one that broke, one on another machine


class LaneLost(ConnectionError):
    """The replica is gone, or failed in a way of which it could not tell."""


class Connection(asyncio.Protocol):
    """Bytes in, frames out: a line of JSON that ends with a newline, and as many bytes as its numbers say."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.head: list[Any] | None = None
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (frame := self.frame()) is not None:
            self.came(*frame)

    def frame(self) -> tuple[list[Any], bytes] | None:
        """The next that is whole. A line that is none ends the connection."""
        if self.head is None:
            end = self.buffer.find(b"\n")
            if end < 0:
                return None
            try:
                self.head = list(json.loads(self.buffer[:end]))
            except (ValueError, TypeError):
                self.transport.abort()
                return None
            del self.buffer[: end + 1]
        size = self.size(self.head)
        if len(self.buffer) < size:
            return None
        head, body = self.head, bytes(self.buffer[:size])
        del self.buffer[:size]
        self.head = None
        return head, body

    def size(self, head: list[Any]) -> int:
        """Of what follows the line."""
        raise NotImplementedError

    def came(self, head: list[Any], body: bytes) -> None:
        raise NotImplementedError


# -- the replica's end -----------------------------------------------------------------------------------------------------


class Answering(Connection):
    """One connection of an ingress."""

    def __init__(self, lanes: "Lanes") -> None:
        super().__init__()
        self.lanes = lanes
        self.task: asyncio.Task[None] | None = None
        self.flows: asyncio.Future[None] | None = None
        """pending while the other end does not read as fast as we write"""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.lanes.open.add(self)

    def size(self, head: list[Any]) -> int:
        return int(head[1])

    def came(self, head: list[Any], body: bytes) -> None:
        if self.task is not None:  # who asks before the answer has ended does not speak this language
            self.transport.abort()
            return
        self.task = asyncio.get_running_loop().create_task(self.answer(head, body))

    async def answer(self, head: list[Any], body: bytes) -> None:
        path, _, call_id, missed, hint = head
        try:
            async with aclosing(self.lanes.answer(path, body.decode(), call_id, missed, hint)) as items:
                async for item in items:
                    self.transport.write(packed(item))
                    if self.flows:
                        await self.flows
            self.task = None
            self.transport.write(GONE if self.lanes.closing else END)
        except Exception:
            log.exception("a call failed in the replica")
            self.transport.abort()  # as a handle's call would: the asker hears of a lost replica

    def pause_writing(self) -> None:
        self.flows = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self.flows and not self.flows.done():
            self.flows.set_result(None)
        self.flows = None

    def connection_lost(self, error: Exception | None) -> None:
        self.lanes.open.discard(self)
        self.resume_writing()
        if self.task:
            self.task.cancel()


def packed(item: Shown) -> bytes:
    status, text, told = item[0], item[1].encode(errors="replace"), item[2].encode()
    return b"[%d,%d,%d]\n%b%b" % (status, len(text), len(told), text, told)


class Lanes:
    """Of one replica. answer: as `vllm_tier.PlainServer.openai`."""

    def __init__(self, answer: Answer, name: str) -> None:
        self.answer, self.name = answer, name
        self.path = ""
        """where it listens; empty: it does not"""
        self.open: set[Answering] = set()
        self.server: asyncio.AbstractServer | None = None
        self.closing = False

    async def start(self) -> None:
        """Listen. Where that cannot be, calls come by the handle."""
        try:
            folder = own_folder()
            sweep(folder, time.time())
            path = str(folder / self.name)
            self.server = await asyncio.get_running_loop().create_unix_server(lambda: Answering(self), path, backlog=BACKLOG)
            self.path = path
        except OSError as error:
            log.warning("no lane to this replica: %s", error)

    async def close(self, wait_s: float = float("inf")) -> None:
        """Let calls under way end, then go. Serve has its own limit for that, after which it kills."""
        if self.server is None:
            return
        self.closing = True
        self.server.close()
        File(self.path).unlink(missing_ok=True)
        for connection in [c for c in self.open if c.task is None]:
            connection.transport.abort()
        until = time.monotonic() + wait_s
        while any(connection.task for connection in self.open) and time.monotonic() < until:
            await asyncio.sleep(0.05)
        for connection in list(self.open):
            connection.transport.close()


def own_folder() -> File:
    """For sockets: short, for a socket's path may have 107 bytes, and closed to others. Raises OSError."""
    folder = File(tempfile.gettempdir()) / f"stepdown-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not ours alone: mend its owner and mode (700), or remove it")
    return folder


def sweep(folder: File, now_s: float) -> None:
    """Remove sockets at which nobody listens any more."""
    for path in folder.iterdir():
        with suppress(OSError), socket.socket(socket.AF_UNIX) as there:
            if now_s - path.lstat().st_mtime > STALE_S and there.connect_ex(str(path)):
                path.unlink()


# -- the ingress's end -----------------------------------------------------------------------------------------------------


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
        self.closed = False

    def ask(self, path: Path, raw: str, call_id: str, missed: Sequence[str], hint: str) -> Call:
        body = raw.encode()
        self.call = Call(self)
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
        self.closed = True
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
            if not line.closed:
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
