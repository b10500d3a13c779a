"""The cost page over HTTP. The page itself holds nothing secret; its figures need a key with the right `costs`."""

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, OperationalError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deployments.costs.decisions import recent, trace
from deployments.costs.interval import asked_for
from deployments.costs.report import BY, report
from deployments.ids import traced
from router.config import Config
from router.errors import BadRequest, LedgerDown, NotFound, RequestFailed

PAGE = Path(__file__).parent / "page"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", "": "text/plain"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SAFE = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}
Allowed = Callable[[Request], Any]
"""Raises BadKey or NotAllowed; may be a coroutine function"""
Live = Callable[[], Any]
"""The ladder as it is now; may be a coroutine function"""
Settled = Callable[[], Awaitable[None]]
"""Returns when earlier requests are in the tables"""
Learned = Callable[[], Awaitable[Mapping[str, Any]]]
"""How far learning from the traffic is"""
Endpoint = Callable[[Request], Awaitable[Response]]


async def nothing_learned() -> Mapping[str, Any]:
    return {}


def routes(
    engine: Engine, config: Config, live: Live, allowed: Allowed, settled: Settled, learned: Learned = nothing_learned
) -> list[Route]:
    """To be mounted at the root of the endpoint."""
    page = CostRoutes(engine, config, live, allowed, settled, learned)
    return [
        Route("/costs", shell("index.html")),
        Route("/costs.json", page.guarded(page.figures)),
        Route("/costs/access.json", page.access),
        Route("/costs/live.json", page.guarded(page.ladder)),
        Route("/costs/learning.json", page.guarded(page.learning)),
        Route("/costs/decisions.json", page.guarded(page.decisions)),
        Route("/costs/static/{name:path}", static),
        Route("/costs/traces/{id}.json", page.guarded(page.one_trace)),
        Route("/costs/traces/{id}", shell("trace.html")),
    ]


class CostRoutes:
    """The routes that need a key. They read the database in threads."""

    def __init__(self, engine: Engine, config: Config, live: Live, allowed: Allowed, settled: Settled, learned: Learned) -> None:
        self.engine, self.config, self.live, self.allowed, self.settled = engine, config, live, allowed, settled
        self.learned = learned

    def guarded(self, endpoint: Endpoint) -> Endpoint:
        async def checked(request: Request) -> Response:
            try:
                await awaited(self.allowed(request))
                return await endpoint(request)
            except RequestFailed as error:
                return refused(error)
            except (OperationalError, DBAPIError) as error:
                return refused(LedgerDown(type(error.orig).__name__))

        return checked

    async def access(self, request: Request) -> Response:
        """Whether the key that was sent, if any, may see the figures. Not an error, so that the page can ask first."""
        try:
            await awaited(self.allowed(request))
        except RequestFailed as error:
            return answer({"allowed": False, "why": str(error)})
        return answer({"allowed": True, "why": ""})

    async def figures(self, request: Request) -> Response:
        query = request.query_params
        when = asked_for(query.get("since"), query.get("until"))
        by = query["by"].split(",") if query.get("by") else BY
        arguments = (self.engine, self.config, *when.asked, query.get("key") or None, query.get("tier") or None, by)
        await self.settled()
        return answer(await run_in_threadpool(report, *arguments))

    async def ladder(self, request: Request) -> Response:
        return answer(await awaited(self.live()))

    async def learning(self, request: Request) -> Response:
        return answer(await self.learned())

    async def decisions(self, request: Request) -> Response:
        query = request.query_params
        when = asked_for(query.get("since"), query.get("until"))
        limit, key, tier = number(query.get("limit", "50"), "limit"), query.get("key") or None, query.get("tier") or None
        since, until = when.since if query.get("since") else 0, when.until if query.get("until") else None
        await self.settled()
        rows = await run_in_threadpool(recent, self.engine, limit, key, tier, query.get("before") or None, since, until)
        return answer({"decisions": rows, "next": rows[-1]["cursor"] if len(rows) == limit else None})

    async def one_trace(self, request: Request) -> Response:
        await self.settled()
        found = await run_in_threadpool(trace, self.engine, request.path_params["id"])
        if found is None:
            raise NotFound("there is no such trace in the ledger; single rows are kept for ledger.keep_days")
        return answer(found)


def number(text: str, name: str) -> int:
    """Raises BadRequest."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise BadRequest(f"`{name}` is {text[:20]!r}; give a whole number", name)
    return int(text)


async def awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def answer(data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON that no cache may keep, since it is for one key."""
    body = json.dumps(data, allow_nan=False).encode()
    kept = {"cache-control": "no-store", **SAFE, **dict(headers or {})}
    return Response(body, status, kept, "application/json")


def refused(error: RequestFailed) -> Response:
    """OpenAI's error body, as in the rest of the endpoint."""
    return answer(traced(error.body()), error.status, error.headers())


# -- files ---------------------------------------------------------------------------------------------------------------


def files() -> dict[str, bytes]:
    """Name -> content of every file that can be requested; no path reaches any other."""
    return {str(path.relative_to(PAGE)): path.read_bytes() for path in sorted(PAGE.rglob("*")) if path.is_file()}


FILES = files()


async def static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in FILES or name.endswith(".html"):
        return refused(NotFound(f"the cost page has no file {name[:80]!r}"))
    return file(request, name)


def shell(name: str) -> Endpoint:
    async def page(request: Request) -> Response:
        return file(request, name)

    return page


def file(request: Request, name: str) -> Response:
    """The browser asks for the file each time and gets it only when it has changed, so a new version is seen at once."""
    body = FILES[name]
    tag = f'"{sha256(body).hexdigest()[:16]}"'
    headers = {**SAFE, "etag": tag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=KINDS.get(Path(name).suffix, KINDS[""]))
