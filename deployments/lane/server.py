"""The replica's end of its lanes (see the package): it listens, answers calls, and refuses what it has no place for."""

import asyncio
import hmac
import logging
import secrets
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any

from deployments.lane.address import Address, private
from deployments.lane.frames import CLOSING, FULL, Connection, Item, ending, size_of
from deployments.lane.listening import Listening
from deployments.lane.places import CountedPlaces, Places
from deployments.lane.probes import watch
from deployments.lane.sockets import own_folder, serving, sweep, tcp_socket, unix_socket

log = logging.getLogger("stepdown")
Answer = Callable[[str, str, str, Sequence[str], str], AsyncGenerator[Item]]
TOKEN_BYTES = 32
GREETING_BYTES = 256  # that a connection on TCP may send before its token is known to be right
GREETING_S = 10.0  # within which it must have come


@dataclass(frozen=True, slots=True)
class Network:
    """How a replica may be reached from other machines."""

    host: str = ""
    """its machine's address in the cluster; empty: it does not listen on TCP"""
    certificate: str = ""
    """PEM files of TLS; empty: none is used, and the address must be private"""
    key: str = ""


class ServedConnection(Connection):
    """One connection of an ingress. token: its first line must say it; empty: none is needed."""

    def __init__(self, server: "LaneServer", token: str = "") -> None:
        super().__init__()
        self.server, self.token = server, token
        if token:
            self.most_line = GREETING_BYTES
        self.task: asyncio.Task[None] | None = None
        self.flows: asyncio.Future[None] | None = None
        """pending while the other end does not read as fast as we write"""
        self.greeting: asyncio.TimerHandle | None = None
        """ends a connection that says nothing"""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        watch(transport)
        self.server.open.add(self)
        if self.token:
            self.greeting = asyncio.get_running_loop().call_later(GREETING_S, self.transport.abort)

    def body_size(self, head: list[Any]) -> int:
        return 0 if self.token else size_of(head[1])

    def frame_received(self, head: list[Any], body: bytes) -> None:
        if self.token:
            self.greet(head)
        elif self.task is not None:  # protocol error: a second request before the first answer ended
            self.transport.abort()
        elif not self.server.places.free():
            self.transport.write(ending(FULL))
        else:
            self.task = asyncio.get_running_loop().create_task(self.answer(head, body))

    def greet(self, head: list[Any]) -> None:
        """The first line on TCP."""
        said = head[0] if len(head) == 1 and isinstance(head[0], str) else ""
        if self.greeting:
            self.greeting.cancel()
        if not hmac.compare_digest(said.encode(errors="replace"), self.token.encode()):
            self.refuse()
            return
        self.token, self.most_line = "", Connection.most_line

    async def answer(self, head: list[Any], body: bytes) -> None:
        try:
            path, _, call_id, missed, hint = head
            async with (
                self.server.places.one(),
                aclosing(self.server.answer(path, body.decode(), call_id, missed, hint)) as items,
            ):
                async for item in items:
                    self.transport.write(packed(item))
                    if self.flows:
                        await self.flows
            self.task = None
            self.transport.write(ending(CLOSING if self.server.closing else self.server.places.taken()))
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
        if self.greeting:
            self.greeting.cancel()
        self.resume_writing()
        if self.task:
            self.task.cancel()


def packed(item: Item) -> bytes:
    status, text, measured = item[0], item[1].encode(errors="replace"), item[2].encode()
    return b"[%d,%d,%d]\n%b%b" % (status, len(text), len(measured), text, measured)


class LaneServer:
    """Serves one replica's lanes. answer: as `vllm_tier.PlainServer.openai`. name: the replica's. machine: its id."""

    def __init__(
        self, answer: Answer, name: str, machine: str = "", places: Places | None = None, network: Network | None = None
    ) -> None:
        self.answer, self.name, self.machine = answer, name, machine
        self.places: Places = places or CountedPlaces()
        self.network = network or Network()
        self.address = Address(machine)
        """where it listens; without path and port: nowhere"""
        self.open: set[ServedConnection] = set()
        self.listening: list[Listening] = []
        self.closing = False

    async def start(self) -> None:
        """Listen. Where that fails, calls come another way."""
        path = self.listen_here()
        port, token, encrypted = self.listen_everywhere()
        self.address = Address(self.machine, path, self.network.host if port else "", port, token, encrypted)

    def listen_here(self) -> str:
        """The path of the Unix socket; empty: there is none."""
        try:
            folder = own_folder()
            sweep(folder, time.time())
            path = str(folder / self.name)
            self.listening.append(Listening(unix_socket(path), lambda: ServedConnection(self)))
        except OSError as error:
            log.warning("no lane to this replica on its machine: %s", error)
            return ""
        return path

    def listen_everywhere(self) -> tuple[int, str, bool]:
        """(port, token, whether it is wrapped in TLS); 0: it does not listen on TCP."""
        network, nothing = self.network, (0, "", False)
        if not network.host:
            return nothing
        if not network.certificate and not private(network.host):
            log.info(
                "no lane to this replica from other machines: %s is no private address, and there is no certificate", network.host
            )
            return nothing
        try:
            context: ssl.SSLContext | None = serving(network.certificate, network.key) if network.certificate else None
            bound = tcp_socket(network.host)
        except OSError as error:
            log.warning("no lane to this replica from other machines: %s", error)
            return nothing
        token, port = secrets.token_urlsafe(TOKEN_BYTES), int(bound.getsockname()[1])
        self.listening.append(Listening(bound, lambda: ServedConnection(self, token), context))
        return port, token, context is not None

    async def close(self, wait_s: float = float("inf")) -> None:
        """Let running calls end, then close. Serve has its own limit for that, after which it kills the process."""
        if not self.listening:
            return
        self.closing = True
        for listening in self.listening:
            listening.close()
        if self.address.path:
            File(self.address.path).unlink(missing_ok=True)
        for connection in [c for c in self.open if c.task is None]:
            connection.transport.abort()
        until = time.monotonic() + wait_s
        while any(connection.task for connection in self.open) and time.monotonic() < until:
            await asyncio.sleep(0.05)
        for connection in list(self.open):
            connection.transport.close()
