"""Whose fault an error of a tier is: a table of what servers say, and what we make of it."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.tiers.faults import MOST_BACK_OFF_S, failure, of_error_event
from router.errors import NoReplica, RequestFailed, TierBusy, TierFailed, TierMisconfigured, WindowExceeded

pytestmark = pytest.mark.slow

KEY = "sk-proj-abcdefghijklmnop"


def openai(message, code=None, kind="invalid_request_error", param=None):
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def judged(status, body, **headers):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return failure("it", status, raw, {name.replace("_", "-"): value for name, value in headers.items()})


OPERATORS = {
    "a wrong key": (401, openai(f"Incorrect API key provided: {KEY}.", "invalid_api_key"), "api_key_env"),
    "a key without a body": (401, b"", "api_key_env"),
    "a key without rights": (403, openai("You have insufficient permissions", kind="permission_error"), "api_key_env"),
    "a firewall's page": (403, b"<html><title>403 Forbidden</title></html>", "api_key_env"),
    "a proxy that wants a password": (407, b"Proxy Authentication Required", "api_key_env"),
    "no money": (402, openai("Insufficient Balance", "invalid_request_error", "unknown_error"), "quota"),
    "a quota used up": (429, openai("You exceeded your current quota", "insufficient_quota", "insufficient_quota"), "quota"),
    "a quota that only the type names": (429, {"error": {"type": "insufficient_quota", "message": "no"}}, "quota"),
    "a quota in words": (429, {"error": "You exceeded your current quota, please check your plan"}, "quota"),
    "credit, called a bad request": (400, openai("Your credit balance is too low to access the API."), "quota"),
    "an unknown model": (404, openai("The model `x` does not exist", "model_not_found", param="model"), "model"),
    "an unknown model, called a bad request": (400, openai("Model Not Exist"), "model"),
    "a field `model` that is refused": (422, openai("no such thing", param="model"), "model"),
    "a deployment that is not there": (404, {"error": {"code": "DeploymentNotFound", "message": "no"}}, "model"),
    "a model of openrouter's": (400, {"error": {"message": "no/such is not a valid model ID", "code": 400}}, "model"),
    "a model of ollama's": (404, {"error": "model 'no:latest' not found, try pulling it first"}, "model"),
    "a model that was withdrawn": (400, openai("The model `x` has been decommissioned", "model_decommissioned"), "model"),
    "a wrong path": (404, b"404 page not found", "url"),
    "a path that was": (410, b"", "url"),
    "a path that takes no POST": (405, {"detail": "Method Not Allowed"}, "url"),
    "an address that moved": (308, b"", "url"),
    "http instead of https": (
        400,
        b"<html><head><title>400 The plain HTTP request was sent to HTTPS port</title></head></html>",
        "url",
    ),
    "a key, called a bad request": (
        400,
        [{"error": {"code": 400, "message": "API key not valid.", "details": [{"reason": "API_KEY_INVALID"}]}}],
        "api_key_env",
    ),
    "a key that was switched off": (
        400,
        openai("The account of this key has been deactivated", "account_deactivated"),
        "api_key",
    ),
    "an upstream that gave up": (408, b"", "proxies"),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operators_fault_is_the_tiers_for_the_client_and_the_log_says_how_to_mend_it(name):
    status, body, mend = OPERATORS[name]
    error = judged(status, body)
    assert type(error) is TierMisconfigured and error.status == 502
    assert mend in error.mend and "tier it" in error.mend and "{" not in error.mend
    told = json.dumps(error.body())
    assert KEY[:8] not in told + error.mend and error.body()["error"]["type"] == "server_error"


TOO_LONG = {
    "openai": (400, openai("This model's maximum context length is 8192 tokens.", "context_length_exceeded")),
    "openai, code only": (400, openai("no", "context_length_exceeded")),
    "vllm": (400, openai("This model's maximum context length is 512 tokens. However, you requested 600", 400)),
    "vllm, older": (400, {"object": "error", "message": "maximum context length is 512 tokens", "code": 400}),
    "vllm, engine": (400, openai("The decoder prompt (length 900) is longer than the maximum model length of 512.")),
    "anthropic": (400, {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 3 > 2"}}),
    "anthropic, both": (400, openai("input length and `max_tokens` exceed context limit: 9 + 9 > 10")),
    "llama.cpp": (
        400,
        {"error": {"message": "the request exceeds the available context size", "type": "exceed_context_size_error"}},
    ),
    "llama.cpp, older": (500, {"error": {"message": "the request exceeds the available context size", "type": "server_error"}}),
    "ollama": (400, {"error": "prompt too long; exceeded max context length by 12 tokens"}),
    "ollama, input": (400, {"error": "the input length exceeds the context length"}),
    "tgi": (
        422,
        {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048.", "error_type": "validation"},
    ),
    "tgi, inputs": (422, {"error": "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000"}),
    "sglang": (
        400,
        {"object": "error", "message": "The input (900 tokens) is longer than the model's context length (512 tokens)."},
    ),
    "gemini": (
        400,
        [{"error": {"code": 400, "message": "The input token count (9) exceeds the maximum number of tokens allowed (8)."}}],
    ),
    "cohere": (400, {"message": "too many tokens: total number of tokens in the prompt cannot exceed 4081"}),
    "bedrock": (400, {"message": "Input is too long for requested model."}),
    "groq": (400, openai("Please reduce the length of the messages or completion.")),
    "xai": (400, {"code": "x", "error": "This model's maximum prompt length is 131072 but the request contains 200000 tokens."}),
    "413": (413, b"<html><title>413 Request Entity Too Large</title></html>"),
}


@pytest.mark.parametrize("name", TOO_LONG)
def test_a_window_that_is_too_small_is_known_in_every_dialect(name):
    error = judged(*TOO_LONG[name])
    assert type(error) is WindowExceeded and error.status == 400
    told = error.body()["error"]
    assert told["code"] == "context_length_exceeded" and "maximum context length" in told["message"]


REQUESTS = {
    "openai": (400, openai("temperature is 9", "invalid_value", param="temperature"), 400, "temperature is 9"),
    "422": (422, openai("bad field"), 422, "bad field"),
    "409": (409, openai("conflict"), 400, "conflict"),
    "415": (415, {"detail": "Unsupported Media Type"}, 400, "Unsupported Media Type"),
    "flat": (400, {"object": "error", "message": "no such field", "type": "BadRequestError", "code": 400}, 400, "no such field"),
    "detail": (400, {"detail": "temperature is 9"}, 400, "temperature is 9"),
    "detail, list": (422, {"detail": [{"loc": ["body", "n"], "msg": "too large", "input": 5}]}, 422, "body.n: too large"),
    "error, text": (400, {"error": "temperature is 9"}, 400, "temperature is 9"),
    "error, and more": (400, {"statusCode": 400, "error": "Bad Request", "message": "temperature is 9"}, 400, "temperature is 9"),
    "errors": (400, {"errors": [{"message": "one"}, {"message": "two"}]}, 400, "one; two"),
    "errors by field": (422, {"errors": {"n": ["too large"]}}, 422, "n: too large"),
    "a list": (400, [{"error": {"code": 400, "message": "temperature is 9"}}], 400, "temperature is 9"),
    "a text": (400, "temperature is 9", 400, "temperature is 9"),
    "plain": (400, b"temperature\r\nis 9\x00\x1b[31m", 400, "temperature is 9 [31m"),
    "a page": (400, b"<!DOCTYPE html><html><head><title>Bad\nRequest</title></head><body>x</body>", 400, "Bad Request"),
    "a page without a title": (400, b"<html><body>secret</body></html>", 400, "status 400"),
    "nothing": (400, b"", 400, "status 400"),
    "null": (400, b"null", 400, "status 400"),
    "problem": (400, {"title": "Bad Request", "status": 400, "detail": "temperature is 9"}, 400, "temperature is 9"),
    "a file that is not there": (404, openai("No such File object: file-1", param="id"), 400, "No such File object"),
    "content that is flagged": (403, {"error": {"code": 403, "message": "your input was flagged"}}, 400, "flagged"),
    "content that is filtered": (400, openai("filtered", "content_filter"), 400, "filtered"),
    "a model that takes no tools": (400, openai("This model does not support tools", param="tools"), 400, "tools"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_requests_own_fault_is_told_with_its_reason(name):
    status, body, ours, reason = REQUESTS[name]
    error = judged(status, body)
    assert type(error) is TierFailed and (error.status, error.outcome) == (ours, "request_refused")
    told = error.body()["error"]
    assert reason in told["message"] and told["type"] == "invalid_request_error"
    assert "<" not in told["message"] and told["message"].isprintable() and len(told["message"]) <= 520


ECHOED = [
    (400, openai("unknown field: 'Invalid API key provided'")),
    (400, openai("'The model x does not exist' is not of type 'number'")),
    (422, {"detail": [{"loc": ["body", "x"], "msg": "wrong", "input": {"code": "invalid_api_key", "param": "model"}}]}),
    (400, {"error": {"message": "wrong", "input": {"error": {"code": "insufficient_quota"}}}}),
    (400, openai("messages.0: credit balance is too low")),
    (400, openai("The model does not support the tool 'get not found'")),
    (400, openai("unsupported role 'The model x does not exist'")),
]


@pytest.mark.parametrize(("status", "body"), ECHOED)
def test_a_clients_words_in_a_reason_do_not_make_it_the_operators_fault(status, body):
    error = judged(status, body)
    assert type(error) is TierFailed and error.status < 500


@pytest.mark.parametrize(
    ("status", "headers", "told_s"),
    [
        (429, {"retry_after": "7"}, 7.0),
        (429, {"retry_after": "0.4"}, 0.4),
        (429, {"retry_after_ms": "250"}, 0.25),
        (429, {}, 1.0),
        (429, {"retry_after": "0"}, 1.0),
        (429, {"retry_after": "-5"}, 1.0),
        (429, {"retry_after": "soon"}, 1.0),
        (429, {"retry_after": "nan"}, 1.0),
        (429, {"retry_after": "1e30"}, MOST_BACK_OFF_S),
        (429, {"retry_after": "9" * 4000}, 1.0),
        (503, {"retry_after": "12"}, 12.0),
        (529, {}, 1.0),
    ],
)
def test_a_tier_that_is_full_is_left_alone_as_long_as_it_asks(status, headers, told_s):
    error = judged(status, openai("Rate limit reached", "rate_limit_exceeded"), **headers)
    assert type(error) is TierBusy and (error.status, error.told_s) == (503, told_s)
    assert int(error.headers()["retry-after"]) >= told_s


@pytest.mark.parametrize(("ahead_s", "least", "most"), [(40, 30, 40), (-40, 1, 1), (10**6, MOST_BACK_OFF_S, MOST_BACK_OFF_S)])
def test_a_date_is_understood(ahead_s, least, most):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead_s), usegmt=True)
    assert least <= judged(429, b"", retry_after=date).told_s <= most


@pytest.mark.parametrize("status", [201, 204, 500, 502, 504, 520, 522, 599, 418, 424, 451])
def test_all_else_is_the_tiers(status):
    error = judged(status, openai("broken"))
    assert type(error) is TierFailed and (error.status, error.outcome) == (502, "tier_failed")


def test_a_503_that_names_no_time_is_a_failure():
    error = judged(503, b"<html>")
    assert type(error) is NoReplica and error.retry_after_s


def test_a_key_in_a_reason_is_not_passed_on():
    for status in (400, 422, 500):
        told = json.dumps(judged(status, openai(f"cannot use {KEY} or Bearer abc.def here")).body())
        assert KEY[3:] not in told and "abc.def" not in told


@pytest.mark.parametrize(
    ("event", "kind", "status"),
    [
        ({"message": "no", "code": 400}, TierFailed, 400),
        ({"message": "no", "code": "422"}, TierFailed, 422),
        ({"message": "no", "type": "invalid_request_error", "code": None}, TierFailed, 400),
        ({"message": "no", "type": "BadRequestError"}, TierFailed, 400),
        ({"message": "maximum context length is 5", "code": 400}, WindowExceeded, 400),
        ({"message": "no", "code": "context_length_exceeded", "type": "invalid_request_error"}, WindowExceeded, 400),
        ({"type": "overloaded_error", "message": "Overloaded"}, TierBusy, 503),
        ({"message": "slow down", "code": 429}, TierBusy, 503),
        ({"message": "no", "code": "invalid_api_key", "status": 401}, TierMisconfigured, 502),
        ({"message": "broke", "code": 500}, TierFailed, 502),
        ({"message": "broke", "code": True}, TierFailed, 502),
        ("broke", TierFailed, 502),
        (None, TierFailed, 502),
        ([], TierFailed, 502),
    ],
)
def test_an_error_in_a_stream_is_decided_in_the_same_way(event, kind, status):
    error = of_error_event("it", event)
    assert type(error) is kind and error.status == status


json_like = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["error", "errors", "detail", "message", "code", "param", "type", "loc"]) | st.text(), inner
        )
    ),
    max_leaves=12,
)


@given(st.integers(100, 999), st.binary(max_size=80) | json_like.map(lambda v: json.dumps(v).encode()), st.text())
def test_whatever_comes_becomes_an_error_of_ours_that_can_be_sent(status, raw, header):
    error = failure("it", status, raw, {"retry-after": header})
    assert isinstance(error, RequestFailed) and 400 <= error.status < 600
    told = json.dumps(error.body(), ensure_ascii=False).encode()
    assert len(told) < 4_000 and all(value.isdigit() for value in error.headers().values())


@given(json_like)
def test_whatever_comes_in_a_stream_becomes_one_too(event):
    json.dumps(of_error_event("it", event).body(), ensure_ascii=False).encode()
