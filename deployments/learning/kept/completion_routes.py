"""OpenAI's stored chat completions and feedback on them, over HTTP. All work on the database is done in threads.

A key sees, changes and deletes the answers that it asked for; one with the right `learn` those of all keys.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from deployments.beside_loop import by_length
from deployments.ids import REPLY, traced
from deployments.learning.kept import completion_store, completions, feedback
from deployments.learning.kept.completions import Chosen, Place, trace_of
from deployments.learning.kept.feedback import Said
from deployments.learning.kept.stored_json import (
    Asked,
    Opinion,
    asked,
    completion_json,
    deleted_json,
    list_json,
    messages_json,
    metadata_of,
    opinion,
)
from deployments.ledger.database import driver_message, writing
from deployments.ledger.rows import Row
from router.entry_points import load_function
from router.errors import BadConfig, BadRequest, LedgerDown, NotFound, RequestFailed
from router.limits.key_limits import Key
from router.request.wire import checked_metadata, decoded

T = TypeVar("T")
LookUp = Callable[[Mapping[str, str]], Awaitable[Key]]
"""a request's headers -> key. Raises BadKey, LedgerDown"""
Settled = Callable[[], Awaitable[None]]
"""Returns when earlier answers are in the tables"""
Read = Callable[[Request, int], Awaitable[bytes]]
"""A request's body, of so many bytes at most. Raises TooLarge, TooSlow, BadRequest"""
Redact = Callable[[list[Row]], list[Row] | None]
"""`learning.redact`: a conversation as it may be kept; None: nothing of it"""
Endpoint = Callable[[Request, Key], Awaitable[Response]]
MOST_BODY = 1_500_000  # bytes of a correction, or of metadata
WAITS_S = (0.05, 0.2, 0.5)  # for an answer that may be on its way into the tables
PART = 20  # answers that are read at a time
PAGE_BYTES = 8_000_000  # of answers in a list; a page ends early rather than hold more
NOT_KEPT = (
    "there is no kept completion {id!r} of this key. It may never have been kept, which its reply's header x-stepdown-stored "
    "says, or have been deleted, or have expired (learning.keep_days)"
)


def routes(
    engine: Engine, look_up: LookUp, settled: Settled, read: Read, redact: str | None = None, hides: bool = False
) -> list[Route]:
    """To be mounted at the root of the endpoint, beside its own POST /v1/chat/completions.

    redact: `learning.redact`. Raises BadConfig where it cannot be loaded. hides: clients get no reasoning (`server.reasoning`).
    """
    hook = load_function(redact, "learning.redact", BadConfig) if redact else None
    made = CompletionRoutes(engine, look_up, settled, read, hook, hides)
    one = "/v1/chat/completions/{id}"
    return [
        Route("/v1/chat/completions", made.guarded(made.listed), methods=["GET"]),
        Route(one, made.guarded(made.by_method), methods=["GET", "POST", "DELETE"]),
        Route(f"{one}/messages", made.guarded(made.messages), methods=["GET"]),
        Route("/v1/feedback", made.guarded(made.feedback), methods=["GET", "POST"]),
    ]


class CompletionRoutes:
    """The endpoints. redact: applied to the texts of feedback before they are kept. hides: see `routes`."""

    def __init__(
        self, engine: Engine, look_up: LookUp, settled: Settled, read: Read, redact: Redact | None, hides: bool = False
    ) -> None:
        self.engine, self.look_up, self.settled, self.read, self.redact = engine, look_up, settled, read, redact
        self.shown = partial(completion_json, hides=hides)

    def guarded(self, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        async def checked(request: Request) -> Response:
            try:
                key = await self.look_up(request.headers)
                check_names(request)
                return await endpoint(request, key)
            except ClientDisconnect:
                return Response(status_code=499)
            except RequestFailed as error:
                return answer(json.dumps(traced(error.body())).encode(), error.status, error.headers())

        return checked

    async def answered(self, work: Callable[..., Any], *args: Any) -> Response:
        """The work's result as JSON; both are done in a thread. Raises LedgerDown where the database does not answer."""
        await self.settled()
        return answer(await run_in_threadpool(encoded, work, *args))

    async def of_one(self, work: Callable[..., Any], *args: Any) -> Response:
        """`answered` of work on one answer, which may not be written yet where its client has only just got it."""
        for wait_s in WAITS_S:
            try:
                return await self.answered(work, *args)
            except NotFound:
                await asyncio.sleep(wait_s)
        return await self.answered(work, *args)

    async def body_of(self, request: Request) -> Any:
        raw = await self.read(request, MOST_BODY)
        return await by_length(raw, decoded, raw)

    # -- completions -----------------------------------------------------------------------------------------------

    async def listed(self, request: Request, key: Key) -> Response:
        query = request.query_params
        chosen = Chosen(seen_by(key, query.get("key")), query.get("model") or None, metadata=metadata_of(query))
        return await self.answered(self.page, chosen, asked(query, ("model", "key", "metadata[NAME]")))

    def page(self, chosen: Chosen, how: Asked) -> Row:
        with self.engine.connect() as connection:
            after = place_after(connection, how, chosen.key)
            places = completions.page(connection, chosen, how.limit + 1, after, how.newest_first)
            rows, more = self.rows_of(connection, [id for _, id in places[: how.limit]])
        return list_json([self.shown(row) for row in rows], more or len(places) > how.limit)

    def rows_of(self, connection: Connection, ids: Sequence[str]) -> tuple[list[Row], bool]:
        """Rows of a page, and whether some of its end are left out since they would be too large together."""
        rows: list[Row] = []
        size = 0
        for start in range(0, len(ids), PART):
            if size > PAGE_BYTES:
                return rows, True
            part = completions.find_all(connection, ids[start : start + PART])
            size += sum(len(row[name] or "") for row in part for name in ("answer", "tools", "sampling"))
            rows += part
        return rows, False

    async def by_method(self, request: Request, key: Key) -> Response:
        id, seen = request.path_params["id"], seen_by(key)
        if request.method == "DELETE":
            return await self.of_one(self.delete, id, seen)
        if request.method == "POST":
            metadata = metadata_to_set(await self.body_of(request))
            return await self.of_one(self.update, id, seen, metadata)
        return await self.of_one(self.one, id, seen)

    def one(self, id: str, key: str | None) -> Row:
        with self.engine.connect() as connection:
            return self.shown(found(completions.find(connection, id, key), id))

    def update(self, id: str, key: str | None, metadata: Mapping[str, str]) -> Row:
        with writing(self.engine) as connection:
            if not completions.set_metadata(connection, id, key, metadata):
                raise NotFound(NOT_KEPT.format(id=id[:80]))
            return self.shown(found(completions.find(connection, id, key), id))

    def delete(self, id: str, key: str | None) -> Row:
        with writing(self.engine) as connection:
            row = found(completions.find(connection, id, key), id)
            completion_store.forget(connection, [row["trace_id"]])
        return deleted_json(id)

    async def messages(self, request: Request, key: Key) -> Response:
        return await self.of_one(self.messages_of, request.path_params["id"], seen_by(key), asked(request.query_params))

    def messages_of(self, id: str, key: str | None, how: Asked) -> Row:
        with self.engine.connect() as connection:
            row = found(completions.find(connection, id, key, without=("answer", "signals", "tools")), id)
        listed = messages_json(id, json.loads(row["messages"] or "[]"))
        if how.newest_first:
            listed.reverse()
        ids = [message["id"] for message in listed]
        if how.after and how.after not in ids:
            raise NotFound(f"`after` names no message of {id[:80]}: {how.after[:80]!r}")
        start = ids.index(how.after) + 1 if how.after else 0
        return list_json(listed[start : start + how.limit], start + how.limit < len(listed))

    # -- feedback --------------------------------------------------------------------------------------------------

    async def feedback(self, request: Request, key: Key) -> Response:
        if request.method == "POST":
            return await self.of_one(self.give, opinion(await self.body_of(request)), key.id, seen_by(key))
        id = request.query_params.get("id", "")
        if not id:
            raise BadRequest("say of which reply: /v1/feedback?id=chatcmpl-...", "id")
        return await self.of_one(self.said_of, id, seen_by(key))

    def give(self, given: Opinion, by: str, seen: str | None) -> Row:
        trace_id = trace_of(given.id)
        with self.engine.connect() as connection:  # the hook may take long, so it runs before the transaction
            row = found(completions.find(connection, REPLY + trace_id, seen, without=("answer", "signals")), given.id)
        correction, comment = self.redacted(given, json.loads(row["messages"] or "[]"))
        said = Said(trace_id, by, time.time(), given.score, correction, comment)
        with writing(self.engine) as connection:
            found(completions.find(connection, row["id"], seen), given.id)  # it may have been deleted meanwhile
            feedback.give(connection, said)
        return feedback.shown(said)

    def said_of(self, id: str, seen: str | None) -> Row:
        trace_id = trace_of(id)
        with self.engine.connect() as connection:
            found(completions.find(connection, REPLY + trace_id, seen), id)
            return {"object": "list", "data": [feedback.shown(one) for one in feedback.of_trace(connection, trace_id)]}

    def redacted(self, given: Opinion, messages: Sequence[Row]) -> tuple[str | None, str | None]:
        """Correction and comment as they may be kept: the correction at the end of its conversation, the comment alone."""
        if self.redact is None:
            return given.correction, given.comment
        correction, comment = given.correction, given.comment
        if correction is not None:
            correction = last_text(self.redact, [*messages, {"role": "assistant", "content": correction}], "correction")
        if comment is not None:
            comment = last_text(self.redact, [{"role": "user", "content": comment}], "comment")
        return correction, comment


def last_text(redact: Redact, messages: list[Row], name: str) -> str:
    """The last message's text after redaction. Raises BadRequest where the hook keeps nothing, or fails."""
    try:
        kept = redact(messages)
        text = kept[-1]["content"] if kept is not None else None
    except Exception:  # noqa: BLE001 the hook is not ours, and an unredacted text must not be kept
        text = None
    if not isinstance(text, str):
        raise BadRequest(f"`{name}` may not be kept here (learning.redact); send the feedback without it", name)
    return text


def check_names(request: Request) -> None:
    """Raises BadRequest for what no database takes as a text."""
    given = [*request.path_params.values(), *(part for pair in request.query_params.multi_items() for part in pair)]
    if any("\0" in text for text in given):
        raise BadRequest("the address holds a NUL character (%00); no id, name or value has one")


def place_after(connection: Connection, how: Asked, key: str | None) -> Place | None:
    """Where the page begins. Raises NotFound."""
    if not how.after:
        return None
    place = completions.place_of(connection, how.after, key, how.newest_first)
    if place is None:
        raise NotFound(f"`after` names no kept completion of this key: {how.after[:80]!r}; begin again without it")
    return place


def seen_by(key: Key, asked_for: str | None = None) -> str | None:
    """Of which key this one may see answers; None: of all. Raises NotAllowed where it asks for another one's."""
    if "learn" in key.rights:
        return asked_for or None
    if asked_for not in (None, "", key.id):
        key.require("learn")
    return key.id


def found(row: Row | None, id: str) -> Row:
    """Raises NotFound, in the same words whether there is nothing of this id, or it is another key's."""
    if row is None:
        raise NotFound(NOT_KEPT.format(id=id[:80]))
    return row


def metadata_to_set(body: Any) -> dict[str, str]:
    """Raises BadRequest."""
    if not isinstance(body, dict) or "metadata" not in body:
        raise BadRequest(
            "the body must be an object with `metadata`, the one thing of a kept completion that can change", "metadata"
        )
    if more := sorted(body.keys() - {"metadata"}):
        raise BadRequest(f"`{more[0][:64]}` of a kept completion cannot change, only `metadata`", more[0][:64])
    return checked_metadata(body["metadata"] or {})


def encoded(work: Callable[..., Any], *args: Any) -> bytes:
    """Raises LedgerDown."""
    try:
        return json.dumps(work(*args), allow_nan=False).encode()
    except SQLAlchemyError as error:
        raise LedgerDown(driver_message(error)) from error


def answer(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON that no cache may keep, since it is for one key."""
    return Response(body, status, {"cache-control": "no-store", **dict(headers or {})}, "application/json")
