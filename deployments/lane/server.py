"""The replica's end of its lanes: a Unix socket at which the ingress's calls come (lane.py), in a folder that is this user's
alone, so that nobody else may call."""

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

from deployments.lane.frames import END, GONE, Connection, Shown
from router.types import Path

log = logging.getLogger("stepdown")
Answer = Callable[[Path, str, str, Sequence[str], str], AsyncGenerator[Shown]]
BACKLOG = 4096  # connections that may wait to be taken: of a Unix socket more are refused at once
STALE_S = 60.0  # a socket at which nobody listens for that long is what a killed replica left behind


class Caller(Connection):
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
        try:
            path, _, call_id, missed, hint = head
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
        self.open: set[Caller] = set()
        self.server: asyncio.AbstractServer | None = None
        self.closing = False

    async def start(self) -> None:
        """Listen. Where that cannot be, calls come by the handle."""
        try:
            folder = own_folder()
            sweep(folder, time.time())
            path = str(folder / self.name)
            self.server = await asyncio.get_running_loop().create_unix_server(lambda: Caller(self), path, backlog=BACKLOG)
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
