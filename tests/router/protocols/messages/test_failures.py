"""Errors as clients of Anthropic understand them."""

import re

import pytest

from router import errors
from router.protocols.messages import error

ERRORS = [
    (errors.BadRequest("no", "model"), 400, "invalid_request_error", False),
    (errors.ContextTooLong(900, largest=512), 400, "invalid_request_error", False),
    (errors.WindowExceeded("small"), 400, "invalid_request_error", False),
    (errors.BadKey(), 401, "authentication_error", False),
    (errors.NotAllowed("no"), 403, "permission_error", False),
    (errors.NotFound("no"), 404, "not_found_error", False),
    (errors.UnknownModel("gpt", ["small"], ["cheap"]), 404, "not_found_error", False),
    (errors.WrongMethod("GET"), 405, "invalid_request_error", False),
    (errors.TooSlow(60), 408, "invalid_request_error", True),
    (errors.TooLarge(10), 413, "request_too_large", False),
    (errors.RateLimited(60, "requests", 7.2), 429, "rate_limit_error", True),
    (errors.RateLimited(60, "tokens", 7.2, needed=99), 429, "rate_limit_error", False),
    (errors.BudgetSpent(5.0, "day", 0.1, 0.2, 7200.0), 429, "rate_limit_error", False),
    (errors.BudgetExceeded(0.2, 0.1), 429, "rate_limit_error", False),
    (errors.TierFailed("small", "broke"), 502, "api_error", True),
    (errors.TierMisconfigured("small", "mend"), 502, "api_error", False),
    (errors.TierFailed("small", "bad field", 422), 422, "invalid_request_error", False),
    (errors.DeadlineExceeded(60), 504, "timeout_error", True),
    (errors.NoReplica("small", "none runs"), 529, "overloaded_error", True),
    (errors.TierBusy("small", "full"), 529, "overloaded_error", True),
    (errors.TierCold("large"), 529, "overloaded_error", True),
    (errors.Overloaded(4.0), 529, "overloaded_error", True),
    (errors.LedgerDown("disk full"), 529, "overloaded_error", True),
]


@pytest.mark.parametrize(
    "failed, status, kind, again", ERRORS, ids=lambda x: type(x).__name__ if isinstance(x, Exception) else ""
)
def test_each_error_has_its_status_and_type(failed, status, kind, again):
    made = error(failed, "req_1")
    assert made.status == status and set(made.body) == {"type", "error", "request_id"}
    assert (made.body["type"], made.body["error"]["type"], made.body["request_id"]) == ("error", kind, "req_1")
    assert str(failed) in made.body["error"]["message"]
    assert made.headers.get("x-should-retry") == (None if again else "false")
    assert made.headers["request-id"] == "req_1" and failed.headers().items() <= made.headers.items()


@pytest.mark.parametrize("failed", [failed for failed, status, *_ in ERRORS if status == 529], ids=lambda x: type(x).__name__)
def test_overloaded_says_when_to_come_again(failed):
    assert float(error(failed, "r").headers["retry-after"]) >= 1


@pytest.mark.parametrize("failed", [errors.ContextTooLong(90_000, largest=65_536), errors.ContextTooLong(65_536, largest=65_536)])
def test_a_prompt_that_is_too_long_is_told_in_numbers(failed):
    """Claude Code reads them from the message."""
    message = error(failed, "r").body["error"]["message"]
    asked, most = map(int, re.search(r"prompt is too long: (\d+) tokens > (\d+) maximum", message).groups())
    assert asked > most == 65_536


def test_a_tier_that_counts_itself_gives_no_numbers():
    assert "prompt is too long" in error(errors.WindowExceeded("small"), "r").body["error"]["message"]


def test_a_tiers_own_words_are_passed_on():
    theirs = {"error": {"message": "no such voice", "type": "x", "param": None, "code": None}}
    assert error(errors.TierFailed("small", "400", 400, theirs), "r").body["error"]["message"] == "no such voice"
    assert "tier small" in error(errors.TierFailed("small", "odd", 400, {"error": "text"}), "r").body["error"]["message"]


def test_sdks_hear_by_its_code_that_a_thread_is_not_kept():
    found = error(errors.NoThread(), "req_1")
    assert found.status == 400 and found.body["error"]["details"] == {"error_code": "thread_not_found"}
