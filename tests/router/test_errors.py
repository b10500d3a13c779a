import inspect
import re

import pytest

from router import errors
from router.errors import (
    BadConfig,
    BadInput,
    BadKey,
    BadPlan,
    BadRequest,
    BudgetExceeded,
    BudgetSpent,
    ContextTooLong,
    DeadlineExceeded,
    DelegationFailed,
    ForeignRequest,
    HeadersTooLarge,
    LedgerDown,
    NoPreviousResponse,
    NoReplica,
    NoService,
    NotAllowed,
    NotFound,
    NoThread,
    NoTierFits,
    NotJson,
    NoWebSocket,
    Overloaded,
    RateLimited,
    RequestFailed,
    ServerStopping,
    StepdownError,
    TierBusy,
    TierCold,
    TierFailed,
    TierMisconfigured,
    TierSilent,
    TooLarge,
    ToolNameConflict,
    TooSlow,
    UnknownEncoding,
    UnknownModel,
    Unsupported,
    UnsupportedTool,
    WindowExceeded,
    WrongKind,
    WrongMethod,
)


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = re.findall(r"^[│├└─ ]*([A-Z]\w+)", errors.__doc__.split("\n\n", 1)[1], re.MULTILINE)
    written = [n for n, c in vars(errors).items() if inspect.isclass(c) and issubclass(c, errors.StepdownError)]
    assert sorted(drawn) == sorted(written)


def test_a_tiers_own_error_is_kept_only_for_faults_of_the_request():
    theirs = {"error": {"message": "no"}}
    assert errors.TierFailed("t", "no", 422, theirs).body() == theirs
    assert errors.TierFailed("t", "no", 500, theirs).body()["error"]["code"] == "tier_failed"
    assert errors.TierFailed("t", "no", 500).status == 502


CLIENT, SERVER = "invalid_request_error", "server_error"
MADE = [
    (BadRequest("no"), 400, "invalid_request", CLIENT),
    (ContextTooLong(900, 512), 400, "context_length_exceeded", CLIENT),
    (NoTierFits({"small": "takes no tools"}), 400, "no_tier_fits", CLIENT),
    (ToolNameConflict("stepdown_x", "tools[0]"), 400, "tool_name_conflict", CLIENT),
    (Unsupported("no"), 400, "unsupported", CLIENT),
    (NoPreviousResponse("resp_1", "it is unknown"), 400, "previous_response_not_found", CLIENT),
    (UnsupportedTool("no"), 400, "unsupported_tool", CLIENT),
    (NoThread(), 400, "thread_not_found", CLIENT),
    (BadKey(), 401, "invalid_api_key", CLIENT),
    (NotAllowed("this key may not use tier large"), 403, "not_allowed", CLIENT),
    (NotFound("no such path"), 404, "not_found", CLIENT),
    (UnknownModel("gpt", ["small"], ["cheap"]), 404, "model_not_found", CLIENT),
    (NoService("no service for score"), 404, "model_not_found", CLIENT),
    (WrongKind("'embed' is a service"), 404, "model_not_found", CLIENT),
    (WrongMethod("GET"), 405, "method_not_allowed", CLIENT),
    (TooSlow(60), 408, "request_timeout", CLIENT),
    (TooLarge(10), 413, "request_too_large", CLIENT),
    (ForeignRequest("Host 'x'", "server.hosts"), 403, "foreign_request", CLIENT),
    (UnknownEncoding("br", "gzip"), 415, "unsupported_encoding", CLIENT),
    (NotJson("text/plain"), 415, "unsupported_media_type", CLIENT),
    (HeadersTooLarge(10), 431, "headers_too_large", CLIENT),
    (TierFailed("small", "broke"), 502, "tier_failed", SERVER),
    (TierFailed("small", "broke", 500), 502, "tier_failed", SERVER),
    (TierFailed("small", "bad field", 422), 422, "tier_failed", CLIENT),
    (TierFailed("small", "conflict", 409), 400, "tier_failed", CLIENT),
    (TierFailed("small", "no key", 401), 502, "tier_failed", SERVER),
    (WindowExceeded("small"), 400, "context_length_exceeded", CLIENT),
    (TierMisconfigured("small", "check its key"), 502, "tier_misconfigured", SERVER),
    (NoReplica("small", "none runs"), 503, "tier_unavailable", SERVER),
    (TierBusy("small", "it is full"), 503, "tier_busy", SERVER),
    (TierCold("large"), 503, "cold", SERVER),
    (Overloaded(4.0), 503, "overloaded", SERVER),
    (DelegationFailed("nothing came back"), 502, "delegation_failed", SERVER),
    (DeadlineExceeded(60), 504, "deadline_exceeded", SERVER),
    (BudgetExceeded(0.2, 0.1), 429, "budget_exceeded", SERVER),
    (RateLimited(60, "requests", 7.2), 429, "rate_limit_exceeded", "requests"),
    (BudgetSpent(5.0, "day", 0.1, 0.2, 7200.0), 429, "insufficient_quota", "insufficient_quota"),
    (ServerStopping(), 503, "server_stopping", SERVER),
    (NoWebSocket(), 426, "upgrade_required", CLIENT),
    (TierSilent("small", 3), 504, "tier_silent", SERVER),
    (LedgerDown("disk full"), 503, "ledger_unavailable", SERVER),
]
OTHERS = [
    (StepdownError, 500, "internal_error"),
    (BadInput, 500, "bad_input"),
    (BadConfig, 500, "bad_config"),
    (BadPlan, 500, "bad_plan"),
]


def drawn():
    """Each class of the picture with its parent and the status beside it."""
    found, above = {}, [StepdownError.__name__]
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"([│ ]*)[├└]── (\w+)\s+(\d{3})?", line + " ")
        if match:
            depth = len(match[1]) // 4
            above[depth + 1 :] = [match[2]]
            found[match[2]] = (above[depth], int(match[3]) if match[3] else None)
    return found


def classes(root=StepdownError):
    for kind in root.__subclasses__():
        if kind.__module__.startswith(f"{errors.__name__}."):
            yield kind
            yield from classes(kind)


def test_the_picture_is_the_tree():
    assert {k.__name__: k.__base__.__name__ for k in classes()} == {name: above for name, (above, _) in drawn().items()}


def test_the_picture_tells_the_status():
    told = {name: status for name, (_, status) in drawn().items() if status}
    assert {k.__name__: k.status for k in classes() if k.__name__ in told} == told


@pytest.mark.parametrize("error, status, code, kind", MADE, ids=lambda x: type(x).__name__ if isinstance(x, Exception) else "")
def test_an_error_has_status_and_openais_body(error, status, code, kind):
    assert error.status == status
    body = error.body()["error"]
    assert (body["code"], body["type"], body["message"]) == (code, kind, str(error))
    assert set(body) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("kind, status, code", OTHERS)
def test_what_is_no_request_has_a_code_too(kind, status, code):
    assert (kind.status, kind.code) == (status, code)


def test_the_tables_here_know_every_class():
    known = {type(row[0]) for row in MADE} | {row[0] for row in OTHERS} | {RequestFailed}
    assert set(classes()) - known == set()


@pytest.mark.parametrize(
    "error, says",
    [
        (ContextTooLong(900, 512), ["maximum context length is 512 tokens", "900 tokens"]),
        (
            NoTierFits({"small": "takes no tools", "large": "takes no images"}),
            ["small: takes no tools", "large: takes no images"],
        ),
        (UnknownModel("gpt", ["small", "large"], ["cheap"]), ["'gpt'", "auto", "auto:cheap", "auto:0.97", "small", "large"]),
        (BadKey(), ["Authorization: Bearer KEY", "x-api-key: KEY", "api-key: KEY"]),
        (NoWebSocket(), ["POST"]),
        (TierSilent("small", 300.0), ["small", "300 s"]),
        (ServerStopping(), ["stopping", "1 s"]),
        (TooLarge(10), ["10 bytes"]),
        (NoReplica("small", "none runs"), ["small", "none runs", "10 s"]),
        (TierCold("large", 20.0), ["large", "one is starting", "20 s"]),
        (TierBusy("small", "it is full", 7.2), ["small", "it is full", "8 s"]),
        (WindowExceeded("small"), ["small", "maximum context length", "shorten it"]),
        (TierMisconfigured("small", "check its key"), ["small", "the server's log"]),
        (Overloaded(4.0), ["full", "4 s"]),
        (DeadlineExceeded(2.5), ["2.5 s"]),
        (BudgetExceeded(0.2, 0.1), ["0.2 USD", "0.1 USD"]),
        (RateLimited(60, "requests", 7.2), ["60 requests a minute", "try again in 8 s"]),
        (RateLimited(100, "tokens", 60, needed=250), ["100 tokens a minute", "may need 250", "shorten it"]),
        (
            BudgetSpent(5.0, "day", 0.1, 0.2, 7200.0),
            ["5 USD a day", "0.1 USD left", "may cost 0.2 USD", "filled up again in 2.0 h"],
        ),
        (BudgetSpent(5.0, "month", 0.1, 0.2, 5.0, held_usd=3.0), ["a month", "in flight hold 3 USD", "try again in 5 s"]),
        (LedgerDown("disk full"), ["disk full", "try again in 10 s"]),
    ],
)
def test_a_message_says_what_was_found_and_what_is_allowed(error, says):
    assert [part for part in says if part not in str(error)] == []


@pytest.mark.parametrize(
    "error, seconds",
    [
        (NoReplica("small", "none runs"), 10.0),
        (TierCold("large", 20.0), 20.0),
        (TierBusy("small", "it is full"), 2.0),
        (TierBusy("small", "it is full", 0.3), 1.0),
        (Overloaded(4.0), 4.0),
        (LedgerDown("disk full"), 10.0),
        (RateLimited(60, "requests", 7.2), 8.0),
        (RateLimited(60, "requests", 0.01), 1.0),  # a header of 0 would be read as: at once
        (BudgetSpent(5.0, "day", 0.1, 0.2, 7200.0), 7200.0),
    ],
)
def test_an_error_that_passes_says_when_to_come_back(error, seconds):
    assert error.retry_after_s == seconds


def test_a_tiers_body_without_an_error_is_replaced():
    assert TierFailed("small", "broke", 400, {"detail": "x"}).body()["error"]["code"] == "tier_failed"
