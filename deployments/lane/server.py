"""The replica's end of a lane (see the package): a Unix socket in a folder that only this user can enter."""

import asyncio
import logging
import os
import socket
import stat
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from pathlib import Path as File
from typing import Any

from deployments.lane.frames import CLOSING, END, Connection, Item

log = logging.getLogger("stepdown")
Answer = Callable[[str, str, str, Sequence[str], str], AsyncGenerator[Item]]
BACKLOG = 4096  # connections that may wait to be accepted; a Unix socket refuses more at once
STALE_S = 60.0  # a socket on which nothing listens for that long was left behind by a killed replica


class ServedConnection(Connection):
    """One connection of an ingress."""

    def __init__(self, server: "LaneServer") -> None:
        super().__init__()
        self.server = server
        self.task: asyncio.Task[None] | None = None
        self.flows: asyncio.Future[None] | None = None
        """pending while the other end does not read as fast as we write"""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.server.open.add(self)

    def body_size(self, head: list[Any]) -> int:
        return int(head[1])

    def frame_received(self, head: list[Any], body: bytes) -> None:
        if self.task is not None:  # protocol error: a second request before the first answer ended
            self.transport.abort()
            return
        self.task = asyncio.get_running_loop().create_task(self.answer(head, body))

    async def answer(self, head: list[Any], body: bytes) -> None:
        try:
            path, _, call_id, missed, hint = head
            async with aclosing(self.server.answer(path, body.decode(), call_id, missed, hint)) as items:
                async for item in items:
                    self.transport.write(packed(item))
                    if self.flows:
                        await self.flows
            self.task = None
            self.transport.write(CLOSING if self.server.closing else END)
        except Exception:
            log.exception("a call failed in the replica")
            self.transport.abort()  # the ingress sees a lost replica, as it would through a handle

    def pause_writing(self) -> None:
        self.flows = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self.flows and not self.flows.done():
            self.flows.set_result(None)
        self.flows = None

    def connection_lost(self, error: Exception | None) -> None:
        self.server.open.discard(self)
        self.resume_writing()
        if self.task:
            self.task.cancel()


def packed(item: Item) -> bytes:
    status, text, measured = item[0], item[1].encode(errors="replace"), item[2].encode()
    return b"[%d,%d,%d]\n%b%b" % (status, len(text), len(measured), text, measured)


class LaneServer:
    """Serves one replica's lane. answer: as `vllm_tier.PlainServer.openai`. name: the replica's."""

    def __init__(self, answer: Answer, name: str) -> None:
        self.answer, self.name = answer, name
        self.path = ""
        """the socket; empty: it does not listen"""
        self.open: set[ServedConnection] = set()
        self.server: asyncio.AbstractServer | None = None
        self.closing = False

    async def start(self) -> None:
        """Listen. If that fails, calls come through the handle."""
        try:
            folder = own_folder()
            sweep(folder, time.time())
            path = str(folder / self.name)
            loop = asyncio.get_running_loop()
            self.server = await loop.create_unix_server(lambda: ServedConnection(self), path, backlog=BACKLOG)
            self.path = path
        except OSError as error:
            log.warning("no lane to this replica: %s", error)

    async def close(self, wait_s: float = float("inf")) -> None:
        """Let running calls end, then close. Serve has its own limit for that, after which it kills the process."""
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
    """A folder for sockets, closed to other users; its path is short, as a socket's may have 107 bytes. Raises OSError."""
    folder = File(tempfile.gettempdir()) / f"stepdown-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is open to other users: mend its owner and mode (700), or remove it")
    return folder


def sweep(folder: File, now_s: float) -> None:
    """Remove sockets on which nothing listens any more."""
    for path in folder.iterdir():
        with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            if now_s - path.lstat().st_mtime > STALE_S and probe.connect_ex(str(path)):
                path.unlink()
