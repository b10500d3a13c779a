"""The ingress in process over echo tiers, without Ray, for tests that throw things at it."""

from starlette.applications import Starlette
from starlette.routing import Route

from deployments.app import TIERS
from deployments.endpoint import openapi
from deployments.endpoint.accounts import without_books
from deployments.endpoint.ingress import Ingress
from deployments.keys.key_store import hashed
from router.engine import Router

KEY = {"authorization": "Bearer right"}


def app_of(router: Router) -> Starlette:
    tiers = {t.name: TIERS[t.engine].make(t, None, 5.0, None) for t in router.config.tiers}
    app = Ingress(router, tiers, without_books(hashed("right")), router.config.server.max_body_bytes).app()
    if not any(getattr(route, "path", "") == "/openapi.json" for route in app.routes):
        app.router.routes.append(Route("/openapi.json", openapi.endpoint))
    return app
