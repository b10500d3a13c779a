"""What load balancers and orchestrators ask, without a key: whether to restart this server, to send it requests, to wait for it.

All answers come from what is known already: a flood of questions asks no tier, no database and no controller more often.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from math import inf
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deployments import OWN_PROBE
from deployments.endpoint.doors.readiness import Readiness

LIVE = ("/livez", "/healthz")
READY = ("/readyz", "/health", "/ping")
STARTED = ("/startupz",)
PATHS = (*LIVE, *READY, *STARTED)
NOT_KEPT = {"cache-control": "no-store"}


class Health:
    """The endpoints. names: the ladder's. ticks: seconds that never jump."""

    def __init__(self, readiness: Readiness, names: Sequence[str], ticks: Callable[[], float] = time.monotonic) -> None:
        self.readiness, self.names, self.ticks = readiness, names, ticks
        self.asked_at = -inf
        """when somebody else last asked whether this server should get requests, on `ticks`"""

    def routes(self) -> list[Route]:
        places = ((LIVE, self.livez), (READY, self.readyz), (STARTED, self.startupz))
        return [Route("/", root), *(Route(path, endpoint) for paths, endpoint in places for path in paths)]

    @property
    def asked_s(self) -> float:
        """Seconds since somebody else asked whether this server should get requests; infinite: nobody has."""
        return self.ticks() - self.asked_at

    async def livez(self, request: Request) -> Response:
        """Neither tiers nor the database count: to restart this server would heal neither."""
        return JSONResponse({"status": "ok", "tiers": list(self.names)}, headers=NOT_KEPT)

    async def readyz(self, request: Request) -> Response:
        if request.headers.get("user-agent") != OWN_PROBE:
            self.asked_at = self.ticks()
        return told("ready", *await self.readiness.shown())

    async def startupz(self, request: Request) -> Response:
        return told("started", await self.readiness.never_up(), {})


async def root(request: Request) -> Response:
    """For whoever looks what is here."""
    api = {"api": "/v1", "description": "/openapi.json", "health": list(PATHS)}
    return JSONResponse({"name": "stepdown", "version": version("stepdown"), **api})


def told(state: str, missing: Mapping[str, str], lost: Mapping[str, str]) -> Response:
    """state: unless something is missing. lost: what is not needed."""
    body: dict[str, Any] = {"status": f"not {state}" if missing else state, "missing": missing}
    body |= {"lost": lost} if lost else {}
    return JSONResponse(body, 503 if missing else 200, NOT_KEPT | ({"retry-after": "1"} if missing else {}))
