"""Errors as Anthropic words them. Clients decide by type, status and headers whether to ask again."""

from typing import Any

from router.errors import (
    BudgetExceeded,
    BudgetSpent,
    ContextTooLong,
    NoThread,
    RateLimited,
    RequestFailed,
    TierMisconfigured,
    WindowExceeded,
)
from router.protocols.edge import Failure

OVERLOADED = 529
TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    OVERLOADED: "overloaded_error",
    504: "timeout_error",
}
TOO_LONG = "prompt is too long"  # by these words Claude Code knows that it has to shorten the conversation
AGAIN = frozenset({408, 429})  # statuses below 500 that waiting may heal
HOPELESS = (BudgetSpent, BudgetExceeded, TierMisconfigured)


def error(failed: RequestFailed, request_id: str) -> Failure:
    headers = {"request-id": request_id, **failed.headers()}
    if not worth_repeating(failed):
        headers["x-should-retry"] = "false"
    body = {"type": "error", "error": described(failed), "request_id": request_id}
    return Failure(status_of(failed), body, headers)


def described(failed: RequestFailed) -> dict[str, Any]:
    """Type and message, as in bodies and in streams; of a thread that is not kept also the code that SDKs act upon."""
    status = status_of(failed)
    kind = TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")
    details = {"details": {"error_code": failed.code}} if isinstance(failed, NoThread) else {}
    return {"type": kind, "message": message_of(failed), **details}


def status_of(failed: RequestFailed) -> int:
    """Whatever cannot answer now is overloaded, for clients that wait only then."""
    return OVERLOADED if failed.status == 503 else failed.status


def message_of(failed: RequestFailed) -> str:
    if isinstance(failed, ContextTooLong):
        asked = max(failed.tokens, failed.largest + 1)  # a window that is full has no room for an answer
        return f"{TOO_LONG}: {asked} tokens > {failed.largest} maximum; {failed}"
    if isinstance(failed, WindowExceeded):
        return f"{TOO_LONG}: {failed}"
    told = failed.body().get("error")
    said = told.get("message") if isinstance(told, dict) else None  # a tier's own words, where the request is wrong
    return said if isinstance(said, str) and said else str(failed)


def worth_repeating(failed: RequestFailed) -> bool:
    if isinstance(failed, RateLimited):
        return not failed.needed
    return not isinstance(failed, HOPELESS) and (failed.status >= 500 or failed.status in AGAIN)
