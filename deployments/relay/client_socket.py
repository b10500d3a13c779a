"""The socket of the client that is being answered, for events that need no further look.

Between an ASGI application and the socket stand Starlette, Ray Serve and uvicorn, which together take half of a token's time.
This writes into uvicorn's transport, in the chunks that uvicorn itself would write, which uvicorn does not promise to allow:
where its parts are not as in the version that this was written for, nothing is written here, and every event goes the long way.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from functools import cache
from typing import Any

log = logging.getLogger("stepdown")
WRITTEN_FOR = "0.54."  # uvicorn's versions
SWITCH = "STEPDOWN_RELAY"
"""environment variable; `off`: no event goes the short way, and remote tiers are asked through aiohttp"""
TOLD = "every token goes through all of uvicorn %s, which takes twice the processor time: %s"
EVENT = b"data: 1\n\n"
"""any event, to try uvicorn with"""

SOCKET: ContextVar["ClientSocket | None"] = ContextVar("SOCKET", default=None)
"""of the request that is being answered; None: its events cannot be written past its server"""


class ClientSocket:
    """cycle: uvicorn's, of one request and its response."""

    __slots__ = ("cycle", "flow", "loop")

    def __init__(self, cycle: Any, loop: asyncio.AbstractEventLoop | None) -> None:
        self.cycle, self.flow, self.loop = cycle, cycle.flow, loop

    @property
    def ready(self) -> bool:
        """Whether the head of a response in chunks is out, and its end is not; and whether we run where the socket belongs."""
        cycle = self.cycle
        begun = cycle.response_started and cycle.chunked_encoding is True and not cycle.response_complete
        return begun and cycle.scope["method"] != "HEAD" and running_loop() is self.loop

    def write(self, events: bytes) -> bool:
        """Send them now. False: not now, since the client has left or does not read. Only where it was `ready`."""
        cycle = self.cycle
        if self.flow.write_paused or cycle.disconnected or cycle.response_complete:
            return False
        cycle.transport.write(b"%x\r\n%b\r\n" % (len(events), events))
        return True


def running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def remember(send: Callable[..., Any]) -> None:
    """Note whose `send` a server called an application with. Any other's changes nothing."""
    cycle = getattr(send, "__self__", None)
    if cycle is not None and type(cycle) is known_kind():
        SOCKET.set(ClientSocket(cycle, running_loop()))


def switched_off() -> bool:
    return os.environ.get(SWITCH, "") == "off"


@cache
def known_kind() -> type | None:
    """uvicorn's kind of cycle, if it is as it is needed here. Found out once, and told in the log if it is not."""
    if switched_off():
        return None
    try:
        from uvicorn import __version__ as version
        from uvicorn.protocols.http.httptools_impl import RequestResponseCycle as Kind
    except ImportError as error:
        log.warning(TOLD, "", f"it has no such part ({error})")
        return None
    odd = unlike(Kind) if version.startswith(WRITTEN_FOR) else f"this was written for {WRITTEN_FOR}x"
    if odd:
        log.warning(TOLD, version, odd)
        return None
    return Kind


class Written:
    """Stands for a transport and for its flow control."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.write_paused = False

    def write(self, data: bytes) -> None:
        self.sent.append(data)


def unlike(kind: Any) -> str:
    """What is wrong with such a cycle, tried on nobody's connection: whether it writes an event as we do. Empty: nothing."""
    wire, scope = Written(), {"method": "POST", "type": "http", "http_version": "1.1"}
    fixed = {"logger": log, "access_logger": log, "access_log": False, "default_headers": [], "message_event": asyncio.Event()}
    try:
        cycle = kind(
            scope=scope, transport=wire, flow=wire, expect_100_continue=False, keep_alive=True, on_response=lambda: None, **fixed
        )
        client = ClientSocket(cycle, running_loop())
        early = client.ready
        body = {"type": "http.response.body", "body": EVENT, "more_body": True}
        for message in ({"type": "http.response.start", "status": 200, "headers": []}, body):
            with suppress(StopIteration):
                cycle.send(message).send(None)
        if early or not client.ready or not client.write(EVENT) or wire.sent[1:2] != wire.sent[2:]:
            return "it writes events otherwise"
        wire.write_paused = True
        if client.write(EVENT):
            return "it does not say when a client reads"
        wire.write_paused, cycle.disconnected = False, True
        return "it does not say when a client has left" if client.write(EVENT) else ""
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        return f"it cannot be tried ({type(error).__name__}: {error})"
