"""The models that a client may ask for: `auto` and its targets, tiers, services, and aliases that are whole names."""

import time
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from router.decide import aliases
from router.engine import Router
from router.errors import UnknownModel
from router.limits.key_limits import Key
from router.protocols import messages


class Models:
    """router: the one that decides now."""

    def __init__(self, router: Callable[[], Router]) -> None:
        self.router, self.started = router, int(time.time())

    def names(self) -> list[str]:
        router = self.router()
        targets = (f"auto:{target}" for target in router.targets)
        names = ["auto", *targets, *router.config.served_names, *aliases.listed(router.config.aliases)]
        return list(dict.fromkeys(names))  # an alias with the name of a tier never counts

    def card(self, name: str) -> dict[str, Any]:
        """OpenAI's model object; a routing target also has the state of its certificate, a rung the tier that it is `on`."""
        shown: dict[str, Any] = {"id": name, "object": "model", "created": self.started, "owned_by": "stepdown"}
        router = self.router()
        stands_for = router.stands_for(name)
        target = None if stands_for in router.config.service_names else router.target_of(stands_for)
        if stands_for in router.config.hosts:
            shown["on"] = router.config.hosts[stands_for]
        return shown | ({"certificate": router.flows.promises.worst(target)} if target else {})

    async def all(self, request: Request, key: Key) -> Response:
        """In Anthropic's shape for its clients."""
        cards = list(map(self.card, self.names()))
        return JSONResponse(messages.models(cards) if anthropic(request) else {"object": "list", "data": cards})

    async def one(self, request: Request, key: Key) -> Response:
        """Raises UnknownModel."""
        name, router = request.path_params["name"], self.router()
        if router.stands_for(name) == name and name not in self.names():
            raise UnknownModel(name, list(router.names), router.targets)
        return JSONResponse(messages.model(self.card(name)) if anthropic(request) else self.card(name))


def anthropic(request: Request) -> bool:
    return "anthropic-version" in request.headers
