"""A listening socket that accepts all connections that wait, in one turn of the event loop.

uvloop accepts one connection a turn, and a turn in which many streams go on takes tens of milliseconds.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

MOST = 64  # connections of one turn; what more wait come in the next
BACKLOG = 4096  # connections that may wait to be accepted; a Unix socket refuses more at once
REST_S = 0.5  # without accepting, where the process may open no more files
HANDSHAKE_S = 10.0  # that TLS may take
NO_MORE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Listening:
    """bound: a socket with its address. made: the protocol of each connection. context: for TLS."""

    def __init__(self, bound: socket.socket, made: Callable[[], asyncio.Protocol], context: ssl.SSLContext | None = None) -> None:
        self.socket, self.made, self.context = bound, made, context
        self.loop = asyncio.get_running_loop()
        self.tasks: set[asyncio.Task[None]] = set()
        bound.setblocking(False)
        bound.listen(BACKLOG)
        self.loop.add_reader(bound, self.accept)

    def accept(self) -> None:
        """Take what waits, and leave the rest to the next turn."""
        for _ in range(MOST):
            try:
                connection, _ = self.socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in NO_MORE:  # else the loop would ask again at once, for ever
                    self.loop.remove_reader(self.socket)
                    self.loop.call_later(REST_S, self.go_on)
                return
            connection.setblocking(False)
            task = self.loop.create_task(self.connect(connection))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def connect(self, connection: socket.socket) -> None:
        """Give the connection its protocol. The other end may have gone, or may not speak TLS."""
        with suppress(OSError):
            if self.context:
                await self.loop.connect_accepted_socket(
                    self.made, connection, ssl=self.context, ssl_handshake_timeout=HANDSHAKE_S
                )
            else:
                await self.loop.connect_accepted_socket(self.made, connection)

    def go_on(self) -> None:
        if self.open:
            self.loop.add_reader(self.socket, self.accept)

    @property
    def open(self) -> bool:
        return self.socket.fileno() >= 0

    def close(self) -> None:
        """Take no more. Nothing happens the second time."""
        if self.open:
            self.loop.remove_reader(self.socket)
            self.socket.close()
