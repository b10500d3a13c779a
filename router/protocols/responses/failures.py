"""Errors in OpenAI's words: of a request that got no answer, and of a stream that broke."""

from collections.abc import Mapping
from typing import Any

from router import errors
from router.errors import RequestFailed
from router.protocols.edge import Failure

REPEATABLE = frozenset({408, 409, 429})
"""statuses of the 4xx after which the same request may be answered"""
HOPELESS = (errors.BudgetSpent, errors.BudgetExceeded)
CODES: Mapping[type[RequestFailed], str] = {
    errors.Overloaded: "server_is_overloaded",
    errors.NoReplica: "server_is_overloaded",
    errors.TierCold: "server_is_overloaded",
    errors.LedgerDown: "server_is_overloaded",
    errors.ContextTooLong: "context_length_exceeded",
    errors.WindowExceeded: "context_length_exceeded",
    errors.BudgetSpent: "insufficient_quota",
    errors.RateLimited: "rate_limit_exceeded",
}
"""error -> the code in a stream, by which clients decide whether to try again"""


def error(failed: RequestFailed, request_id: str) -> Failure:
    """OpenAI's SDKs repeat 429 unless they are told not to."""
    hopeless = (400 <= failed.status < 500 and failed.status not in REPEATABLE) or isinstance(failed, HOPELESS)
    return Failure(failed.status, failed.body(), failed.headers() | ({"x-should-retry": "false"} if hopeless else {}))


def in_stream(failed: RequestFailed) -> dict[str, Any]:
    """`error` of a failed response."""
    return {
        "code": next((code for kind, code in CODES.items() if isinstance(failed, kind)), "server_error"),
        "message": str(failed),
    }
