"""Lets web pages of other origins call the API and read its answers, as `server.cors` says: what browsers call CORS."""

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from deployments.endpoint.doors.paths import path_of
from router.config import Server

SHOWN = (
    *("retry-after", "x-request-id", "request-id"),
    *(f"x-stepdown-{name}" for name in ("calls", "certificate", "confidence", "cost-usd", "decision-ms", "degraded")),
    *(f"x-stepdown-{name}" for name in ("delegation", "escalations", "ignored", "reason", "state", "stored", "tier", "trace-id")),
    "x-stepdown-service",
    "x-stepdown-warning",
)
"""headers of an answer that a page may read"""
METHODS = ("GET", "POST", "DELETE", "OPTIONS")
PREFLIGHT_S = 600  # that a browser need not ask again
OWN = ("/costs", "/v1/admin/")
"""begin paths that are for the operator, and so for no other page"""


def shared_with_pages(server: Server, open_door: bool) -> list[Middleware]:
    """open_door: no key is asked for, so that `*` would let any page in."""
    if not server.cors or (open_door and server.cors == "*"):
        return []
    origins = [server.cors] if isinstance(server.cors, str) else server.cors
    allowed = Middleware(
        Pages, allow_origins=origins, allow_methods=METHODS, allow_headers=("*",), expose_headers=SHOWN, max_age=PREFLIGHT_S
    )
    return [allowed]


class Pages(CORSMiddleware):
    """Answers preflights of every path of the API without a key, and marks its answers, errors and streams too."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and path_of(scope).startswith(OWN):
            await self.app(scope, receive, send)
            return
        await super().__call__(scope, receive, send)
