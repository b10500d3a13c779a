"""The endpoints of the protocols beside OpenAI's chat: Responses and Messages, and their counting of tokens.

A request becomes a chat here, and its answer the protocol's again; what lies between knows only chats.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deployments.beside_loop import by_size
from deployments.endpoint.answering import Answering
from deployments.endpoint.replies import FailureResponse, error_response
from deployments.endpoint.spoken.response_states import Kept, ResponseStates
from deployments.endpoint.spoken.seals import KeySeals, server_secret
from deployments.endpoint.spoken.writer import Keep
from deployments.ids import current
from router.errors import NoPreviousResponse, NotFound, RequestFailed, Unsupported
from router.limits.key_limits import Key
from router.protocols import messages, responses
from router.protocols.edge import About, Edge
from router.request import wire
from router.types import Request as Asked

Endpoint = Callable[[Request, Key], Awaitable[Response]]
ReadBody = Callable[..., Awaitable[tuple[bytes, Key]]]
CHAT = "chat/completions"
IGNORED = "x-stepdown-ignored"
WARNING = "x-stepdown-warning"
LONGEST_HEADER = 1_000  # characters


def repeats_failures(request: Request) -> bool:
    """Whether the client is Codex: it asks thirty times where the status is a server error, and once where a stream tells it."""
    return request.headers.get("originator", "").lower().startswith("codex")


def told_in_a_stream(edge: Edge, answer: FailureResponse) -> Response:
    error = answer.error if isinstance(answer.error, RequestFailed) else RequestFailed("internal error")
    said = b"".join(edge.encoder().failed(error))
    kept = {name: value for name, value in answer.headers.items() if name not in ("content-length", "content-type")}
    return Response(said, media_type="text/event-stream", headers=kept)


class Protocols:
    """read: a request's body, and its key with the limits that are left to check. states: None: answers are not kept."""

    def __init__(self, answering: Answering, read: ReadBody, check: Callable[[], None], states: ResponseStates | None) -> None:
        self.answering, self.read, self.check, self.states = answering, read, check, states

    def routes(self, guarded: Callable[[Endpoint], Any]) -> list[Route]:
        return [
            Route("/v1/responses", guarded(self.respond), methods=["POST"]),
            Route("/v1/responses/input_tokens", guarded(self.count_response), methods=["POST"]),
            Route("/v1/responses/{id}", guarded(self.kept), methods=["GET", "DELETE"]),
            Route("/v1/responses/{id}/input_items", guarded(self.kept_input)),
            Route("/v1/responses/{id}/cancel", guarded(self.unsupported), methods=["POST"]),
            Route("/v1/conversations{rest:path}", guarded(self.unsupported), methods=["GET", "POST", "DELETE"]),
            Route("/v1/messages", guarded(self.message), methods=["POST"]),
            Route("/v1/messages/count_tokens", guarded(self.count_message), methods=["POST"]),
        ]

    # -- answers ---------------------------------------------------------------------------------------------------------

    async def respond(self, request: Request, key: Key) -> Response:
        """OpenAI's Responses. Raises RequestFailed."""
        self.check()
        raw, key = await self.read(request, key)
        body = await self.with_items(await by_size(wire.decoded, raw), key)
        history = await self.history(responses.previous(body), key)
        edge = await by_size(responses.read, body, self.about(key, history))
        keep = partial(self.keep, body.get("input"), edge.led, key) if self.states and body.get("store") is not False else None
        return await self.answer(request, key, edge, len(raw), keep)

    async def message(self, request: Request, key: Key) -> Response:
        """Anthropic's Messages. Raises RequestFailed."""
        self.check()
        raw, key = await self.read(request, key)
        edge = await by_size(messages.read, await by_size(wire.decoded, raw), self.about(key))
        return await self.answer(request, key, edge, len(raw))

    async def answer(self, request: Request, key: Key, edge: Edge, size: int, keep: Keep | None = None) -> Response:
        asked = await self.asked(edge, size)
        try:
            answer = await self.answering.answer(request, key, asked, edge, keep)
        except RequestFailed as error:
            answer = error_response(error)
        if isinstance(answer, FailureResponse) and answer.status_code >= 500 and asked.stream and repeats_failures(request):
            answer = told_in_a_stream(edge, answer)
        for name, found in ((IGNORED, edge.ignored), (WARNING, getattr(edge, "warnings", ()))):
            if found:
                answer.headers[name] = ",".join(found).encode("ascii", "replace").decode()[:LONGEST_HEADER]
        return answer

    async def asked(self, edge: Edge, size: int) -> Asked:
        body = self.answering.router.named(edge.body)
        return await by_size(wire.checked, CHAT, body, size)

    def about(self, key: Key, history: Sequence[Mapping[str, Any]] = ()) -> About:
        shown = self.answering.router.config.responses.reasoning
        return About(current(), int(time.time()), KeySeals(server_secret(), key.id), shown, self.states is not None, history)

    # -- counting --------------------------------------------------------------------------------------------------------

    async def count_response(self, request: Request, key: Key) -> Response:
        tokens = await self.count(request, key, responses.read)
        return JSONResponse({"object": "response.input_tokens", "input_tokens": tokens})

    async def count_message(self, request: Request, key: Key) -> Response:
        return JSONResponse({"input_tokens": await self.count(request, key, partial(messages.read, counting=True))})

    async def count(self, request: Request, key: Key, read: Callable[[Any, About], Edge]) -> int:
        """Tokens that the widest tier behind the model's name would read. It costs nothing and asks no tier."""
        raw, _ = await self.read(request, key, "counting")
        edge = await by_size(read, await by_size(wire.decoded, raw), self.about(key))
        return await by_size(self.answering.router.count_prompt, await self.asked(edge, len(raw)))

    # -- answers that can be continued -----------------------------------------------------------------------------------

    async def history(self, previous: str | None, key: Key) -> Sequence[Mapping[str, Any]]:
        """The chat that a request continues. Raises NoPreviousResponse."""
        if previous is None:
            return ()
        if self.states is None:
            raise NoPreviousResponse(previous, "this server keeps none; the operator can set responses.store: memory or ledger")
        found = await self.states.get(previous, key.id)
        if found is None:
            raise NoPreviousResponse(previous, "it is unknown to this key, or was kept for too long")
        return found.messages

    async def with_items(self, body: Any, key: Key) -> Any:
        """The body with the items that it only names, as far as they are kept for this key."""
        if self.states is None:
            return body
        found = {name: await self.states.get(name, key.id) for name in responses.owners(body)}
        return responses.with_items(body, {name: kept.response for name, kept in found.items() if kept})

    async def keep(
        self, given: Any, led: Sequence[Mapping[str, Any]], key: Key, said: Mapping[str, Any], response: Mapping[str, Any]
    ) -> None:
        """Keep an answer with all that led to it but the instructions, before the client hears that it is whole.

        given: the request's input.
        """
        assert self.states
        text = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": given}]}
        items = [text] if isinstance(given, str) else list(given or ())
        await self.states.put(str(response["id"]), key.id, Kept([*led, said], response, items))

    async def found(self, request: Request, key: Key) -> Kept:
        """Raises NotFound."""
        name = request.path_params["id"]
        found = await self.states.get(name, key.id) if self.states else None
        if found is None:
            why = "" if self.states else "; this server keeps none: see responses.store"
            raise NotFound(f"no response {name[:80]!r} of this key is kept{why}")
        return found

    async def kept(self, request: Request, key: Key) -> Response:
        found = await self.found(request, key)
        if request.method != "DELETE":
            return JSONResponse(found.response)
        assert self.states
        await self.states.delete(request.path_params["id"], key.id)
        return JSONResponse({"id": request.path_params["id"], "object": "response", "deleted": True})

    async def kept_input(self, request: Request, key: Key) -> Response:
        items = (await self.found(request, key)).input_items
        ends = {"first_id": items[0].get("id"), "last_id": items[-1].get("id")} if items else {"first_id": None, "last_id": None}
        return JSONResponse({"object": "list", "data": items, "has_more": False, **ends})

    async def unsupported(self, request: Request, key: Key) -> Response:
        raise Unsupported(f"{request.url.path}: background responses and conversations are not offered here")
