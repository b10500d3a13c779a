"""The faults that an answer shows by itself, which make a request escalate whatever the judge would say."""

from collections.abc import Mapping
from typing import Any

from router.cascade.other_tiers import another_may_answer
from router.errors import WindowExceeded
from router.request import json_text
from router.request.body import answer_limit, wants_json
from router.request.schemas import LONGEST_ANSWER, judge
from router.request.server_tools import ESCALATE, name_of
from router.types import Reply

THOUGHT_TOO_LONG = "thought too long"  # the outcome of an answer that was cut within its thought
TOO_HARD = "<ESCALATE>"  # an answer that ends with this says that the request is too hard for its tier


def fits_format(text: str, body: Mapping[str, Any]) -> bool | None:
    """Whether the text has the form that `response_format` asks for; None: that cannot be told in time."""
    if not wants_json(body):
        return True
    if len(text) > LONGEST_ANSWER:
        return None
    try:
        value = json_text.parsed(text)
    except (ValueError, RecursionError):
        return False
    return judge(value, (body["response_format"].get("json_schema") or {}).get("schema"))


def is_refusal(reply: Reply) -> bool:
    """Whether the tier refused on policy grounds. That is an answer: no larger tier is asked to get round it."""
    return bool(reply.refusal) or reply.finish_reason == "content_filter"


def fault(reply: Reply, body: Mapping[str, Any]) -> str | None:
    """Why this answer cannot be accepted, however confident its tier was; None: nothing is wrong with it."""
    if reply.error is not None:
        return "backend failed"
    if reply.text.rstrip().endswith(TOO_HARD) or any(name_of(call) == ESCALATE for call in reply.tool_calls):
        return "too hard"
    if reply.partial:
        return None  # the checks below need the whole answer
    if not reply.text.strip() and not reply.tool_calls:
        return THOUGHT_TOO_LONG if thought_too_long(reply) else "empty"
    if reply.finish_reason == "length":
        return None if at_limit(reply, body) else "truncated"
    fits = True if reply.tool_calls else fits_format(reply.text, body)
    if not fits:
        return "schema not judged" if fits is None else "schema invalid"
    return "tests failed" if reply.passed is False else None


def thought_too_long(reply: Reply) -> bool:
    """Whether the limit was reached before the answer began."""
    return bool(reply.thought) and reply.finish_reason == "length" and not reply.text.strip()


def at_limit(reply: Reply, body: Mapping[str, Any]) -> bool:
    """Whether an answer of finish reason `length` reached the limit that was set, which is no fault, and not its window's end."""
    limit = answer_limit(reply.call.body) or answer_limit(body)
    return limit is not None and (reply.usage.output_tokens >= limit or not reply.usage.output_tokens)


def blames_client(reply: Reply) -> bool:
    """Whether the tier says that the request itself is wrong. A larger tier would say the same."""
    return reply.error is not None and not another_may_answer(reply.error)


def refuses_field(reply: Reply) -> bool:
    """Whether the tier may have refused a field that we added to the body: its next call should do without."""
    return reply.error is not None and reply.error.status in (400, 422) and not isinstance(reply.error, WindowExceeded)
