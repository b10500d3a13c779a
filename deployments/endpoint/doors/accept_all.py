"""Accepts all connections that wait, in one turn of the event loop.

uvloop accepts one connection a turn, and a turn in which many streams go on takes 10 to 40 ms: where hundreds of streams begin
at once, as behind HAProxy, which opens a connection for each, the last one waited 10 s before anybody had read it. Here a second
reader of the same listening socket takes the others. It uses parts of uvicorn and Ray that are not promised; where they are not
as in the versions that it was written for, everything goes on as without it.
"""

import asyncio
import logging
import os
import socket
from contextlib import suppress
from typing import Any

log = logging.getLogger("stepdown")
MOST = 64  # connections of one turn; what more wait come in the next
LOOK_S = 0.2  # between looks whether the server has begun, and whether it ends


class Acceptor:
    """server: a running `uvicorn.Server` of this event loop. Raises AttributeError, IndexError, OSError where it is none."""

    def __init__(self, server: Any) -> None:
        self.server, self.loop = server, asyncio.get_running_loop()
        server.config.http_protocol_class, server.server_state, server.lifespan.state  # noqa: B018 they must be there
        listening = server.servers[0].sockets[0]
        self.socket = socket.socket(fileno=os.dup(listening.fileno()))
        self.socket.setblocking(False)
        self.tasks: set[asyncio.Task[Any]] = set()
        self.accepted = 0
        self.loop.add_reader(self.socket, self.accept)

    def accept(self) -> None:
        """Take what waits, and leave the rest to the next turn."""
        for _ in range(MOST):
            if self.server.should_exit:
                return self.close()
            try:
                connection, _ = self.socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return None
            except OSError:  # as too many open files: uvloop's own reader meets it too, and says so
                return None
            connection.setblocking(False)
            self.accepted += 1
            task = self.loop.create_task(self.connect(connection))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        return None

    async def connect(self, connection: socket.socket) -> None:
        with suppress(OSError):  # the client has gone meanwhile
            await self.loop.connect_accepted_socket(self.protocol, connection)

    def protocol(self) -> asyncio.Protocol:
        """As `uvicorn.Server.startup` makes it."""
        server = self.server
        made: asyncio.Protocol = server.config.http_protocol_class(
            config=server.config, server_state=server.server_state, app_state=server.lifespan.state
        )
        return made

    def close(self) -> None:
        """Take no more. Nothing happens the second time."""
        if self.socket.fileno() >= 0:
            self.loop.remove_reader(self.socket)
            self.socket.close()


async def accept_all() -> None:
    """Stand beside the server of this replica until it ends; for a Daemon. Never raises."""
    acceptor: Acceptor | None = None
    try:
        while (server := server_of_replica()) is None or not getattr(server, "started", False):
            await asyncio.sleep(LOOK_S)
        if server.config.ssl is None:
            acceptor = Acceptor(server)
        while acceptor and not server.should_exit:
            await asyncio.sleep(LOOK_S)
    except (AttributeError, IndexError, OSError, NotImplementedError) as error:
        log.info("connections are accepted one in a turn: the server is not as expected (%s)", error)
    finally:
        if acceptor:
            acceptor.close()


def server_of_replica() -> Any:
    """The `uvicorn.Server` that Ray has started for the replica that this is; None: not yet, or there is none."""
    import ray

    worker = ray._private.worker.global_worker  # Ray has no public way to it
    own = worker.actors.get(worker.actor_id) if worker.actor_id else None
    return getattr(getattr(own, "_replica_impl", None), "_direct_ingress_http_server", None)
