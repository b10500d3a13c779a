"""The endpoint over HTTP without Ray: a real ASGI app, echo tiers, Starlette's client."""

import json

import pytest
from starlette.testclient import TestClient

from deployments.app import TIERS
from deployments.endpoint.accounts import without_books
from deployments.endpoint.ingress import Ingress
from deployments.keys.key_store import hashed
from deployments.tiers.token_counters import counters
from router.config import Config
from router.engine import Router

KEY = {"authorization": "Bearer right"}
PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
CHAT = {"model": "auto", "messages": [{"role": "user", "content": "one two three"}]}


def client(**changes) -> TestClient:
    tiers = [
        {"name": "small", "engine": "echo", "context": 200, "tools": False, "price": PRICE},
        {"name": "large", "engine": "echo", "context": 400, "price": PRICE, **changes},
    ]
    config = Config.model_validate({"tiers": tiers, "server": {"max_body_bytes": 20_000}})
    made = {t.name: TIERS[t.engine].make(t, None, 5.0, None) for t in config.tiers}
    ingress = Ingress(Router(config, None, counters(config)), made, without_books(hashed("right")), config.server.max_body_bytes)
    return TestClient(ingress.app(), headers=KEY, raise_server_exceptions=False)


def post(body, path="chat/completions", **changes):
    return client(**changes).post(f"/v1/{path}", content=body if isinstance(body, bytes) else json.dumps(body))


def test_a_chat_says_who_answered_and_why():
    answer = post({**CHAT, "model": "small"})
    assert answer.status_code == 200
    assert answer.json()["model"] == "small"
    assert answer.json()["choices"][0]["message"]["content"] == "one two three"
    assert answer.headers["x-stepdown-tier"] == "small"
    assert answer.headers["x-stepdown-reason"] == "asked for"
    assert float(answer.headers["x-stepdown-decision-ms"]) >= 0
    assert len(answer.headers["x-stepdown-trace-id"]) == 32


def test_without_a_trained_router_auto_is_the_largest_tier():
    assert post(CHAT).json()["model"] == "large"


def events(response) -> list[str]:
    return [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]


@pytest.mark.parametrize(
    "path, body", [("chat/completions", CHAT), ("completions", {"model": "auto", "prompt": "one two three"})]
)
def test_a_stream_comes_word_by_word_and_ends_in_usage_and_done(path, body):
    got = events(post({**body, "stream": True, "stream_options": {"include_usage": True}}, path))
    assert got[-1] == "[DONE]"
    assert json.loads(got[-2])["usage"]["completion_tokens"] == 3
    assert len(got) == 5


def test_a_client_may_decline_usage():
    got = events(post({**CHAT, "stream": True, "stream_options": {"include_usage": False}}))
    assert "usage" not in json.loads(got[-2])


@pytest.mark.parametrize(
    "body, status, code",
    [
        (b"{", 400, "invalid_request"),
        (b"[1]", 400, "invalid_request"),
        (b'{"model": "auto", "messages": [], "x": NaN}', 400, "invalid_request"),
        (b"\xff\xfe", 400, "invalid_request"),
        ({"messages": CHAT["messages"]}, 400, "invalid_request"),
        ({**CHAT, "messages": []}, 400, "invalid_request"),
        ({**CHAT, "messages": [{"role": "boss", "content": "x"}]}, 400, "invalid_request"),
        ({**CHAT, "stream": "yes"}, 400, "invalid_request"),
        ({**CHAT, "model": "gpt-9"}, 404, "model_not_found"),
        ({**CHAT, "model": "auto:2"}, 404, "model_not_found"),
        ({**CHAT, "messages": [{"role": "user", "content": "word " * 1000}]}, 400, "context_length_exceeded"),
        ({**CHAT, "messages": [{"role": "user", "content": "x" * 30_000}]}, 413, "request_too_large"),
    ],
)
def test_bad_requests_get_openais_error(body, status, code):
    answer = post(body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["message"]


def test_a_prompt_too_long_for_every_tier_names_both_numbers():
    message = post({**CHAT, "messages": [{"role": "user", "content": "word " * 1000}]}).json()["error"]["message"]
    assert "400 tokens" in message and "1675" in message


def test_tools_skip_the_tier_that_takes_none():
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    answer = client().post("/v1/decision", json={**CHAT, "tools": tools}).json()
    assert answer["tier"] == "large" and answer["excluded"] == {"small": "takes no tools"}


@pytest.mark.parametrize("headers", [{"authorization": "Bearer wrong"}, {"authorization": "Basic right"}, {"authorization": ""}])
@pytest.mark.parametrize("path", ["models", "chat/completions", "decision"])
def test_without_the_key_there_is_nothing(headers, path):
    method = client().get if path == "models" else client().post
    assert method(f"/v1/{path}", headers=headers).status_code == 401


def test_health_needs_no_key():
    assert client().get("/healthz", headers={"authorization": ""}).json()["status"] == "ok"


def test_wrong_paths_and_methods_get_openais_error_too():
    assert client().get("/v1/nothing").json()["error"]["code"] == "not_found"
    assert client().get("/v1/chat/completions").json()["error"]["code"] == "method_not_allowed"


def test_models_lists_the_ways_to_ask():
    names = [m["id"] for m in client().get("/v1/models").json()["data"]]
    assert names == ["auto", "auto:cheap", "auto:balanced", "auto:quality", "small", "large"]
    assert client().get("/v1/models/small").json()["id"] == "small"
    assert client().get("/v1/models/x").status_code == 404


@pytest.mark.parametrize("fail, stream, status", [("error", False, 502), ("error", True, 502), ("refuse", True, 400)])
def test_a_tier_that_fails_before_the_first_token_gives_a_status(fail, stream, status):
    answer = post({**CHAT, "model": "large", "stream": stream}, fail=fail)
    assert answer.status_code == status
    assert answer.headers["x-stepdown-tier"] == "large"


def test_a_tier_that_fails_in_mid_stream_says_so_in_the_stream():
    got = events(post({**CHAT, "stream": True}, fail="mid-stream"))
    assert json.loads(got[-2])["error"]["code"] == "tier_failed"
    assert got[-1] == "[DONE]"


@pytest.mark.parametrize("stream", [False, True])
def test_where_the_tier_that_auto_chose_is_down_another_answers_and_says_so(stream):
    answer = post({**CHAT, "stream": stream}, fail="error")
    assert answer.status_code == 200
    assert (answer.headers["x-stepdown-tier"], answer.headers["x-stepdown-degraded"]) == ("small", "large tier_failed")
    assert "three" in answer.text


def test_a_tier_that_keeps_failing_is_left_alone():
    asked = client(fail="error")
    seen = [asked.post("/v1/chat/completions", json=CHAT).headers.get("x-stepdown-degraded") for _ in range(5)]
    assert seen == ["large tier_failed"] * 3 + ["large tier_unavailable"] * 2
    decided = asked.post("/v1/decision", json=CHAT).json()
    assert decided["tier"] == "small" and "tried again" in decided["excluded"]["large"]


def test_a_tier_asked_for_by_name_is_not_replaced_and_fails_at_once_while_it_is_left_alone():
    asked = client(fail="error")
    body = {**CHAT, "model": "large"}
    answers = [asked.post("/v1/chat/completions", json=body) for _ in range(4)]
    assert [a.status_code for a in answers] == [502, 502, 502, 503]
    assert int(answers[-1].headers["retry-after"]) >= 1


def test_a_request_that_the_tier_refuses_is_not_sent_to_another():
    assert post(CHAT, fail="refuse").status_code == 400
