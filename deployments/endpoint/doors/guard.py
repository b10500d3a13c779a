"""Refuses what should not reach any endpoint, and turns errors that nobody expected into answers.

Where no key is asked for, the browser of somebody at this machine is the way in: any web page may send it here. So a request
must name this machine, since a page's own name may be pointed at it (DNS rebinding); its body must be JSON, which a page may not
send elsewhere without asking first; and its `Origin` must be this server or one that `server.cors` lists.
"""

import logging
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.endpoint.doors import health
from deployments.endpoint.doors.paths import path_of
from deployments.endpoint.draining import Draining
from deployments.endpoint.replies import error_response
from deployments.ids import CURRENT
from deployments.keys.access import loopback
from router.config import Server
from router.errors import ForeignRequest, HeadersTooLarge, NotJson, RequestFailed, ServerStopping, StepdownError

MOST_HEADER_BYTES = 32_768
PUBLIC = frozenset(("/", "/openapi.json", *health.PATHS))
"""paths that tell nothing that a web page may not know; load balancers ask them by whatever name they have, to the very end"""
log = logging.getLogger("stepdown")


class Guard:
    """Stands around all endpoints. open_door: no key is asked for."""

    def __init__(self, app: ASGIApp, server: Server, open_door: bool, draining: Draining) -> None:
        self.app, self.server, self.open_door, self.draining = app, server, open_door, draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            self.check(scope)
            await self.app(scope, receive, noted)
        except RequestFailed as error:
            await error_response(error)(scope, receive, send)
        except Exception as error:
            log.error("unexpected error in request %s", CURRENT.get(), exc_info=error)
            if not begun:
                await error_response(StepdownError())(scope, receive, send)
            raise

    def check(self, scope: Scope) -> None:
        """Raises HeadersTooLarge, ServerStopping, ForeignRequest, NotJson."""
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MOST_HEADER_BYTES:
            raise HeadersTooLarge(MOST_HEADER_BYTES)
        if path_of(scope) in PUBLIC:
            return
        if self.draining.refuses:
            raise ServerStopping
        if self.open_door:
            check_page(scope, Headers(scope=scope), self.server)


def check_page(scope: Scope, headers: Mapping[str, str], server: Server) -> None:
    """Refuse what a foreign web page could send. Raises ForeignRequest, NotJson."""
    host, origin = headers.get("host", ""), headers.get("origin")
    if (loopback(server.host) or server.hosts) and not known(host_of(f"//{host}"), scope, server.hosts):
        raise ForeignRequest(f"Host {host[:80]!r}", "server.hosts")
    named = server.cors if isinstance(server.cors, list) else []  # "*" is for servers that ask for keys
    if origin is not None and origin not in named and place_of(origin) != host.lower():
        raise ForeignRequest(f"Origin {origin[:80]!r}", "server.cors")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if scope["method"] == "POST" and kind != "application/json" and (kind or has_body(headers)):
        raise NotJson(kind)


def has_body(headers: Mapping[str, str]) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def known(name: str, scope: Scope, hosts: Sequence[str]) -> bool:
    """Whether this machine is meant: by a loopback name, the address that the connection came to, or one in `server.hosts`."""
    own = (scope.get("server") or ("",))[0]
    return bool(name) and (loopback(name) or name in {own, *(host.lower() for host in hosts)})


def host_of(address: str) -> str:
    """The host without its port, in lower case; empty: it is none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def place_of(address: str) -> str:
    """Host and port as in a `Host` header, in lower case; empty: it is none, as in `null`."""
    try:
        return urlsplit(address).netloc.lower()
    except ValueError:
        return ""
