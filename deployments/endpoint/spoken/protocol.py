"""The protocol that a client speaks. Its path tells it, and it decides the words of every answer, errors of unknown paths too."""

import itertools
from contextvars import ContextVar
from typing import Literal

from deployments.ids import CURRENT, traced
from router.errors import RequestFailed, StepdownError
from router.protocols import messages, responses
from router.protocols.edge import Failure

Spoken = Literal["chat", "responses", "messages"]
SPOKEN: ContextVar[Spoken] = ContextVar("SPOKEN", default="chat")
"""of the request that is being answered"""


def spoken_at(path: str) -> Spoken:
    """path: as the client sent it, with any prefix."""
    parts = ["v1", *filter(None, path.split("/"))]
    named = {name for before, name in itertools.pairwise(parts) if before == "v1"}
    return "messages" if "messages" in named else ("responses" if "responses" in named else "chat")


def failure(error: StepdownError) -> Failure:
    """An error in the words of the client's protocol; an unexpected one reveals nothing about itself."""
    internal = f"internal error; the server's log has more, under {CURRENT.get()}"
    known = error if isinstance(error, RequestFailed) else RequestFailed(internal)
    spoken, request_id = SPOKEN.get(), CURRENT.get()
    if spoken == "messages":
        return messages.error(known, request_id)
    if spoken == "responses":
        found = responses.error(known, request_id)
        return Failure(found.status, traced(found.body), found.headers)
    return Failure(known.status, traced(known.body()), known.headers())
