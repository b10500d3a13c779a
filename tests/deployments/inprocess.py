"""The ingress in process over echo tiers, without Ray, for tests that throw things at it."""

from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.routing import Route

from deployments.app import SERVICES, TIERS
from deployments.endpoint.accounts import without_books
from deployments.endpoint.ingress import Ingress
from deployments.endpoint.routes import openapi
from deployments.keys.key_store import hashed
from deployments.learning.kept import completion_routes
from router.engine import Router


async def settled() -> None:
    """Nothing is written."""


KEY = {"authorization": "Bearer right"}


def app_of(router: Router, kept: Engine | None = None) -> Starlette:
    """kept: a database with tables, for the paths of what was kept; nothing is written into it."""
    tiers = {t.name: TIERS[t.engine].make(t, None, 5.0, None) for t in router.config.tiers}
    services = {s.name: SERVICES[s.engine].make(s, None, 5.0) for s in router.config.services}
    ingress = Ingress(router, tiers, without_books(hashed("right")), router.config.server.max_body_bytes, services)
    app = ingress.app()
    if kept is not None:
        app.router.routes.extend(completion_routes.routes(kept, ingress.accounts.keys.look_up, settled, ingress.read_short))
    if not any(getattr(route, "path", "") == "/openapi.json" for route in app.routes):
        app.router.routes.append(Route("/openapi.json", openapi.endpoint))
    return app
