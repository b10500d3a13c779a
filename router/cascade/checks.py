"""What can be seen wrong in an answer without asking anyone: the hard triggers of an escalation."""

import json
from collections.abc import Mapping
from typing import Any

from router.request.body import answer_limit, wants_json
from router.request.schemas import fits
from router.request.server_tools import ESCALATE, name_of
from router.types import Reply

TOO_HARD = "<ESCALATE>"  # a stop text by which a tier says that a request is beyond it


def fits_format(text: str, body: Mapping[str, Any]) -> bool:
    """Whether the text is what `response_format` asked for; True where nothing was asked."""
    wanted = body.get("response_format") or {}
    if not wants_json(body):
        return True
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return fits(read, (wanted.get("json_schema") or {}).get("schema"))


def is_final(reply: Reply) -> bool:
    """A refusal by policy is an answer; no larger tier is asked to get round it."""
    return bool(reply.refusal) or reply.finish_reason == "content_filter"


def wrong(reply: Reply, body: Mapping[str, Any]) -> str | None:
    """The reason why this answer cannot stand whatever its confidence, or None."""
    if reply.error is not None:
        return "backend failed"
    if reply.text.rstrip().endswith(TOO_HARD) or any(name_of(call) == ESCALATE for call in reply.tool_calls):
        return "too hard"
    if reply.partial:
        return None  # the rest cannot be judged yet
    if not reply.text.strip() and not reply.tool_calls:
        return "empty"
    if reply.finish_reason == "length":
        return "truncated" if answer_limit(body) is None else None  # else the client cut it short
    if not reply.tool_calls and not fits_format(reply.text, body):
        return "schema invalid"
    return "tests failed" if reply.passed is False else None
