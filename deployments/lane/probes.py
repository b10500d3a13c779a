"""What a TCP connection between machines needs: small writes at once, and a dead machine found out."""

import socket
from contextlib import suppress
from typing import Any

IDLE_S = 10  # without traffic, until the other machine is probed
BETWEEN_S = 5  # probes
PROBES = 3  # without an answer, after which the connection is lost
UNHEARD_MS = 25_000  # that sent bytes may stay without an answer; the same time as the probes take


def watch(transport: Any) -> None:
    """Have the system end the transport's connection when the other machine is silent. Other sockets are left as they are."""
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    options = [
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        *(
            (socket.IPPROTO_TCP, getattr(socket, name), value)
            for name, value in (
                ("TCP_KEEPIDLE", IDLE_S),
                ("TCP_KEEPINTVL", BETWEEN_S),
                ("TCP_KEEPCNT", PROBES),
                ("TCP_USER_TIMEOUT", UNHEARD_MS),
            )
            if hasattr(socket, name)  # Linux has them all
        ),
    ]
    for option in options:
        with suppress(OSError):
            connection.setsockopt(*option)
