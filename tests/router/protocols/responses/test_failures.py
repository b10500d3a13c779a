"""A request that got no answer, in OpenAI's words."""

import pytest

from router.errors import (
    BadRequest,
    BudgetExceeded,
    BudgetSpent,
    NoReplica,
    RateLimited,
    TierFailed,
    TooLarge,
    TooSlow,
    UnknownModel,
)
from router.protocols.responses import error

STOP = {"x-should-retry": "false"}


@pytest.mark.parametrize(
    "failed, headers",
    [
        (BadRequest("no", "input"), STOP),
        (UnknownModel("x", ["small"], []), STOP),
        (TooLarge(10), STOP),
        (TierFailed("small", "no", 422), STOP),
        (BudgetSpent(5.0, "day", 0.1, 0.2, 7200.0), {"retry-after": "7200", **STOP}),
        (BudgetExceeded(0.2, 0.1), STOP),
        (RateLimited(60, "requests", 7.2), {"retry-after": "8"}),
        (TooSlow(60), {}),
        (NoReplica("small", "none runs"), {"retry-after": "10"}),
        (TierFailed("small", "broke"), {}),
    ],
)
def test_an_error_keeps_its_status_and_body_and_says_whether_to_try_again(failed, headers):
    made = error(failed, "req_1")
    assert (made.status, made.body, made.headers) == (failed.status, failed.body(), headers)
