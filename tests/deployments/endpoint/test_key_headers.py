"""Keys in the headers of all kinds of clients, and what belongs to a key: its sessions, its hidden turns, its limits."""

import pytest
from inprocess import app_of
from live import OneFlow, ladder
from scripted_tier import Said, ScriptedTier
from starlette.testclient import TestClient

from deployments.endpoint.accounts import without_books
from deployments.endpoint.ingress import Ingress
from deployments.keys.key_store import Stored, hashed
from deployments.tiers.token_counters import counters
from router.config import Config
from router.engine import Router
from router.limits.key_limits import Key

PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
CHAT = {"model": "auto", "messages": [{"role": "user", "content": "one two"}]}
WAYS = [{"authorization": "Bearer {}"}, {"authorization": "bearer {}"}, {"x-api-key": "{}"}, {"api-key": "{}"}]


def sent(way, secret):
    return {name: value.format(secret) for name, value in way.items()}


def place(make=lambda router, asked, decided: None):
    """An ingress with two keys, bob's and eve's, whose secrets are their names; eve may send two requests a minute."""
    router = OneFlow(ladder(("large",)), make)
    accounts = without_books(hashed("root"))
    made = Ingress(router, {"large": ScriptedTier("large", lambda body: Said("yes"))}, accounts, 1_000_000)
    keys = {"bob": Key("key-bob", "bob"), "eve": Key("key-eve", "eve", requests_per_minute=2)}
    accounts.keys.found = {hashed(name): Stored(key, hashed(name), 0.0, None) for name, key in keys.items()}
    return made, TestClient(made.app())


@pytest.fixture(scope="module")
def client():
    tiers = [{"name": "small", "engine": "echo", "context": 2000, "price": PRICE}]
    config = Config.model_validate({"tiers": tiers})
    with TestClient(app_of(Router(config, None, counters(config)))) as made:
        yield made


@pytest.mark.parametrize("way", WAYS)
def test_every_endpoint_takes_a_key_in_each_way(client, way):
    assert client.post("/v1/chat/completions", json=CHAT, headers=sent(way, "right")).status_code == 200
    for path in ("/v1/models", "/v1/status", "/v1/key"):
        assert client.get(path, headers=sent(way, "right")).status_code == 200
        refused = client.get(path, headers=sent(way, "wrong"))
        assert refused.status_code == 401 and "x-api-key: KEY" in refused.json()["error"]["message"]


def test_two_headers_that_differ_are_no_mistake(client):
    for one, other in (("wrong", "right"), ("right", "wrong")):
        headers = {"authorization": f"Bearer {one}", "x-api-key": other}
        assert client.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize("way", WAYS)
def test_a_key_has_its_limits_however_it_is_sent(way):
    _, client = place()
    told = [client.post("/v1/chat/completions", json=CHAT, headers=sent(way, "eve")).status_code for _ in range(3)]
    assert told == [200, 200, 429]


NAMED = [
    ({"x-session-id": "s"}, {}),
    ({"x-session-affinity": "s"}, {}),
    ({"session-id": "s"}, {}),
    ({"x-claude-code-session-id": "s"}, {}),
    ({}, {"prompt_cache_key": "s"}),
    ({}, {"metadata": {"user_id": "s"}}),
]


@pytest.mark.parametrize("headers, fields", NAMED)
def test_two_keys_with_the_same_session_share_none(headers, fields):
    made, client = place()
    for way in WAYS:
        for name in ("bob", "root"):
            body = {**CHAT, **fields, "messages": [{"role": "user", "content": f"{way} {name}"}]}
            assert client.post("/v1/chat/completions", json=body, headers=headers | sent(way, name)).status_code == 200
    assert len(made.answering.sessions.known) == 2


def test_what_a_body_of_another_protocol_calls_its_conversation_counts_too():
    made, client = place()
    for name in ("bob", "root"):
        for text in ("one", "two"):
            messages = [{"role": "user", "content": text}]
            body = {"model": "auto", "max_tokens": 9, "messages": messages, "metadata": {"user_id": "user_1_session_2"}}
            assert client.post("/v1/messages?beta=true", json=body, headers={"x-api-key": name}).status_code == 200
            asked = {"model": "auto", "input": text, "prompt_cache_key": "user_1_session_2"}
            assert client.post("/v1/responses", json=asked, headers={"api-key": name}).status_code == 200
    assert len(made.answering.sessions.known) == 2


def test_a_conversation_is_one_whichever_header_brings_its_key():
    made, client = place()
    for way in WAYS:
        client.post("/v1/chat/completions", json=CHAT, headers=sent(way, "bob"))
    assert len(made.answering.sessions.known) == 1


def test_hidden_turns_are_found_only_by_the_key_that_made_them():
    made, client = place()
    hidden = made.answering.hidden
    name = hidden.keep("key-bob", [{"role": "assistant", "content": "bob's own"}], {}, "large")
    call = {"id": f"call_sd_{name}_0", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": call["id"], "content": "7"}]
    body = {**CHAT, "messages": [*CHAT["messages"], *turns], "tools": [{"type": "function", "function": {"name": "f"}}]}
    tier = made.answering.tiers["large"].tier
    for way in WAYS:
        for who, found in (("bob", True), ("eve", False)):
            tier.bodies.clear()
            if client.post("/v1/chat/completions", json=body, headers=sent(way, who)).status_code == 200:
                assert ("bob's own" in str(tier.bodies[0]["messages"])) is found
            else:
                assert who == "eve" and way in WAYS[2:]  # her limit


JUDGED_BY_NOBODY = [
    ("openai-organization", "org-nobody"),
    ("openai-project", "proj_nobody"),
    ("openai-beta", "assistants=v9"),
    ("anthropic-version", "1999-13-45"),
    ("anthropic-version", ""),
    ("anthropic-beta", "nothing-2031-01-01,more"),
]


@pytest.mark.parametrize("name, value", JUDGED_BY_NOBODY)
def test_headers_that_other_servers_judge_are_not_judged_here_nor_sent_on(client, name, value):
    headers = {"x-api-key": "right", name: value}
    assert client.post("/v1/chat/completions", json=CHAT, headers=headers).status_code == 200
    assert client.get("/v1/models", headers=headers).status_code == 200
