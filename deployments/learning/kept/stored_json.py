"""Kept answers in the form of OpenAI's stored chat completions, and the questions that its client asks about them. Pure."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import QueryParams

from deployments.ledger.rows import Row
from router.errors import BadRequest
from router.request.shown_reasoning import without_thought
from router.request.thoughts import apart
from router.request.wire import checked_metadata

# As OpenAI has them.
MOST_LISTED = 100
LISTED = 20  # of a page, if the client does not say
METADATA = re.compile(r"metadata\[(.+)\]", re.DOTALL)
# Fields of the request that OpenAI repeats in a stored completion, with what stands for a missing one.
REPEATED = (
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "tool_choice",
    "response_format",
    "service_tier",
)


@dataclass(frozen=True, slots=True)
class Asked:
    """How a list is to be read."""

    after: str
    """id of the last one that the client has; empty: from the begin"""
    limit: int
    newest_first: bool


# -- questions -------------------------------------------------------------------------------------------------------------


PAGED = ("after", "limit", "order")


def asked(query: QueryParams, others: Sequence[str] = ()) -> Asked:
    """`after`, `limit` and `order`. Raises BadRequest, also for parameters that nobody reads: a filter that is misspelt and
    overlooked would list everything, perhaps to be deleted.

    others: parameters that are read elsewhere.
    """
    known = (*PAGED, *others)
    for name in query:
        if name not in known and not name.startswith("metadata"):
            raise BadRequest(f"`{name[:64]}` is no parameter of this list; it has {', '.join(known)}", name[:64])
    limit, order = query.get("limit", str(LISTED)), query.get("order", "asc")
    if not (limit.isascii() and limit.isdigit() and len(limit) < 10 and 1 <= int(limit) <= MOST_LISTED):
        raise BadRequest(f"`limit` is {limit[:20]!r}; use a whole number from 1 to {MOST_LISTED}", "limit")
    if order not in ("asc", "desc"):
        raise BadRequest(f"`order` is {order[:20]!r}; use asc (the oldest first) or desc", "order")
    return Asked(query.get("after", ""), int(limit), order == "desc")


def metadata_of(query: QueryParams) -> dict[str, str]:
    """The pairs of `metadata[NAME]=VALUE`. Raises BadRequest, also for another form, which would list everything."""
    found: dict[str, str] = {}
    for name, value in query.multi_items():
        if not name.startswith("metadata"):  # the others are checked by `asked`
            continue
        pair = METADATA.fullmatch(name)
        if pair is None or found.get(pair[1], value) != value:
            raise BadRequest(f"`{name[:80]}` cannot be asked for; write metadata[NAME]=VALUE, each NAME once", "metadata")
        found[pair[1]] = value
    return dict(checked_metadata(found))


# -- answers ---------------------------------------------------------------------------------------------------------------


def completion_json(row: Row, hides: bool = False) -> Row:
    """A stored chat completion. row: of `completions`, without its messages, which OpenAI lists apart. hides: no reasoning."""
    sampling = json.loads(row["sampling"] or "{}")
    message = {"role": "assistant", "content": None, **json.loads(row["answer"])}
    message = without_thought(apart(message)) if hides else message
    tokens = {"prompt_tokens": row["input_tokens"], "completion_tokens": row["output_tokens"]}
    return {
        "id": row["id"],
        "object": "chat.completion",
        "created": int(row["created_s"]),
        "model": row["tier"],
        "request_id": row["trace_id"],
        "choices": [{"index": 0, "message": message, "finish_reason": row["finish"] or "stop", "logprobs": None}],
        "usage": {**tokens, "total_tokens": row["input_tokens"] + row["output_tokens"]},
        "metadata": json.loads(row["metadata"] or "{}"),
        "tools": json.loads(row["tools"]) if row["tools"] else None,
        **{name: sampling.get(name) for name in REPEATED},
        "system_fingerprint": row["model"] or None,
        "input_user": sampling.get("user"),
        "stepdown": {
            "asked_for": row["wanted"],
            "key": row["key_id"],
            "cost_usd": row["cost_usd"],
            "consent": row["consent"],
            "licence": row["licence"],
            "redaction": row["redaction"],
            "expires": None if row["expires_s"] is None else int(row["expires_s"]),
        },
    }


def messages_json(id: str, messages: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The messages of a stored completion, each with an id of its own; what was given as parts stands in `content_parts`."""
    found = []
    for n, message in enumerate(messages):
        content = message.get("content")
        parts = isinstance(content, list)
        shown = {"content": None if parts else content, "content_parts": content if parts else None}
        found.append({"name": None, **message, **shown, "id": f"{id}-{n}"})
    return found


def list_json(data: Sequence[Row], has_more: bool) -> Row:
    """OpenAI's page of a list."""
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": list(data), "first_id": first, "last_id": last, "has_more": has_more}


def deleted_json(id: str) -> Row:
    return {"object": "chat.completion.deleted", "id": id, "deleted": True}


# -- feedback --------------------------------------------------------------------------------------------------------------

LONGEST_CORRECTION = 200_000  # characters
LONGEST_COMMENT = 10_000
FIELDS = ("id", "score", "correction", "comment")


@dataclass(frozen=True, slots=True)
class Opinion:
    """A body of POST /v1/feedback."""

    id: str
    score: float | None
    correction: str | None
    comment: str | None


def opinion(body: Any) -> Opinion:
    """Raises BadRequest."""
    if not isinstance(body, dict):
        raise BadRequest('the body must be an object, such as {"id": "chatcmpl-...", "score": 0}')
    if unknown := sorted(body.keys() - set(FIELDS)):
        raise BadRequest(f"`{unknown[0][:64]}` is no field of feedback; it has {', '.join(FIELDS)}", unknown[0][:64])
    id = body.get("id")
    if not isinstance(id, str) or not 0 < len(id) <= 192:
        raise BadRequest("`id` must be the id of a reply, such as chatcmpl-..., or of a trace", "id")
    found = Opinion(
        id, score_of(body), text_of(body, "correction", LONGEST_CORRECTION), text_of(body, "comment", LONGEST_COMMENT)
    )
    if found.score is None and found.correction is None and found.comment is None:
        raise BadRequest("the feedback says nothing; give `score`, `correction` or `comment`", "score")
    return found


def score_of(body: Mapping[str, Any]) -> float | None:
    score = body.get("score")
    if score is not None and (not isinstance(score, int | float) or not 0 <= score <= 1):
        raise BadRequest("`score` must be a number from 0 (wrong) to 1 (right), or true or false", "score")
    return None if score is None else float(score)


def text_of(body: Mapping[str, Any], name: str, longest: int) -> str | None:
    text = body.get(name)
    if text is None:
        return None
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise BadRequest(f"`{name}` must be a text that is not empty and has no NUL character", name)
    if len(text) > longest:
        raise BadRequest(f"`{name}` has {len(text)} characters, at most {longest} are kept", name)
    return text
