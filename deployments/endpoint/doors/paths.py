"""Finds the path that a client means, before anything is looked up by it. Nothing is ever redirected.

Base URLs end in `/v1` or do not, clients add `/v1` or do not, and some of them leave a slash at the end or put two in a row.
"""

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.endpoint.replies import error_response
from deployments.endpoint.spoken.protocol import SPOKEN, spoken_at
from router.errors import NoWebSocket

PREFIXES = (("v1", "v1"), ("openai", "v1"), ("anthropic", "v1"), ("v1",), ())
"""what may stand before an endpoint of the API, the longest first"""
ENDPOINTS = frozenset(
    (
        *("chat", "completions", "models", "embeddings", "rerank", "score"),
        *("responses", "conversations", "messages"),
        *("key", "decision", "status", "feedback", "admin"),
    )
)
"""first words of the API's paths, after `/v1`"""
PAGES = "costs"
"""first word of pages, whose links to each other are relative, so that their paths must stay"""
SLASHES = re.compile("//+")


def path_of(scope: Scope) -> str:
    """The request's path below the prefix under which the application is mounted."""
    path, prefix = str(scope["path"]), scope.get("root_path", "")
    below = path.removeprefix(prefix)
    return below if below.startswith("/") or not below else path


def meant(path: str) -> str:
    """The path as it is routed. path: without the prefix under which the application is mounted."""
    words = SLASHES.sub("/", path).removeprefix("/").removesuffix("/").split("/")
    if words[0] == PAGES:
        return path
    if words[:2] == ["v2", "rerank"]:  # Cohere's and Jina's clients
        return "/".join(("/v1", *words[1:]))
    for prefix in PREFIXES:
        here = len(prefix)
        if len(words) > here and words[here] in ENDPOINTS and tuple(words[:here]) == prefix:
            return "/".join(("/v1", *words[here:]))
    return "/" + "/".join(words)


def upgrades(scope: Scope) -> bool:
    """Whether the client wants to speak WebSocket. Servers that know how make a scope of its own of that, others leave it."""
    if scope["type"] == "websocket":
        return True
    headers = scope["headers"] if scope["method"] == "GET" else ()
    return any(name == b"upgrade" and value.strip().lower() == b"websocket" for name, value in headers)


class Paths:
    """Puts the path that is meant in place of the one that was sent, notes its protocol, and refuses to speak WebSocket."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        SPOKEN.set(spoken_at(scope["path"]))
        if upgrades(scope):
            await refuse(scope, receive, send)
            return
        sent = path_of(scope)
        path = meant(sent)
        if path != sent:
            scope = {**scope, "path": scope["path"].removesuffix(sent) + path}
        await self.app(scope, receive, send)


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a handshake with the status that tells clients not to try again."""
    if scope["type"] == "websocket" and "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1002, "reason": str(NoWebSocket())[:120]})  # the server makes it a 403
        return
    await error_response(NoWebSocket())(scope, receive, send)
