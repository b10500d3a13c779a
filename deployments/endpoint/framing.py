"""What HTTP owes every client, whatever its path: an id of the request, and a length where the client knows no chunks.

It stands next to the server that writes to the socket: around the application, and where Ray Serve puts its own servers before
that, around those too (`middlewares`), since Ray appends an `x-request-id` of its own to every response.
"""

import re

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.ids import CURRENT, PARENT, Parent, fresh, parent_of

SANE = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
"""a client's own id that is sent back"""
ASKED = b"x-request-id"
TRACE = b"x-stepdown-trace-id"


def asked_id(scope: Scope) -> bytes:
    """The id that the client gave its request; empty: none, several, or one that we do not repeat."""
    found = [value for name, value in scope["headers"] if name == ASKED]
    return found[0] if len(found) == 1 and SANE.fullmatch(found[0]) else b""


def parent_in(scope: Scope) -> Parent | None:
    """The client's span, of the headers `traceparent` and `tracestate`."""
    found = [value for name, value in scope["headers"] if name == b"traceparent"]
    if len(found) != 1:
        return None
    states = b",".join(value for name, value in scope["headers"] if name == b"tracestate")
    return parent_of(found[0].decode("latin-1"), states.decode("latin-1"))


class Framing:
    """Gives each request an id, and answers HTTP/1.0 without chunks.

    names_request: whether responses get `x-request-id` here; False where Ray appends one and `middlewares` mends it.
    """

    def __init__(self, app: ASGIApp, names_request: bool = True) -> None:
        self.app, self.names_request = app, names_request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        own = fresh()
        CURRENT.set(own)
        PARENT.set(parent_in(scope))
        given = asked_id(scope)
        if scope["http_version"] == "1.0":
            send = whole(send)

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                trace = next((value for name, value in headers if name.lower() == TRACE), b"")
                if not trace:
                    headers.append((TRACE, trace := own.encode()))
                if self.names_request:
                    headers = [(name, value) for name, value in headers if name.lower() != ASKED]
                    headers.append((ASKED, given or trace))
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, named)


def whole(send: Send) -> Send:
    """Collects a response and sends it with its length: HTTP/1.0 has no chunks, and servers write their sizes all the same."""
    start: Message = {}
    parts: list[bytes] = []

    async def collected(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start":
            start = message
            return
        parts.append(message.get("body", b""))
        if message.get("more_body"):
            return
        headers = list(start.get("headers", ()))
        body = b"".join(parts)
        if not any(name.lower() == b"content-length" for name, _ in headers):
            headers.append((b"content-length", str(len(body)).encode()))
        await send({**start, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return collected


def middlewares() -> list[Middleware]:
    """For RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH: what Ray puts around its servers, outside of its own `x-request-id`."""
    return [Middleware(Framing)]
