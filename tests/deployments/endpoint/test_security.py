"""What a hostile client can put where: nothing of it becomes a header, a line of the log, a path or an address."""

import asyncio
import json
import logging

import pytest
from fuzzing import router
from hypothesis import given
from hypothesis import strategies as st
from inprocess import app_of
from starlette.testclient import TestClient

from deployments.tiers.token_counters import counters
from router.config import Config
from router.engine import Router

KEY = "right"
PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
EVIL = "x\r\nx-evil: 1\r\n\r\n<script>\x1b[31m\x00\u2028 INFO forged line"
CHAT = {"model": "auto", "messages": [{"role": "user", "content": "one two"}]}


def app(**server):
    tiers = [
        {"name": "small", "engine": "echo", "context": 200, "price": PRICE},
        {"name": "large", "engine": "echo", "context": 400, "price": PRICE},
        {"name": "away", "engine": "remote", "context": 400, "price": PRICE, "url": "http://127.0.0.1:1/v1", "model": "m"},
    ]
    config = Config.model_validate({"tiers": tiers, "server": server})
    return app_of(Router(config, None, counters(config)))


@pytest.fixture(scope="module")
def client():
    with TestClient(app(), headers={"authorization": f"Bearer {KEY}"}, raise_server_exceptions=False) as made:
        yield made


def raw(application, path, headers, body=b"", method="POST"):
    """One request past every HTTP library, which would refuse such header bytes: (status, headers, body) as they leave."""
    sent, asked = [], [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        return asked.pop(0) if asked else await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "replace"),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    asyncio.run(application(scope, receive, send))
    start = next(m for m in sent if m["type"] == "http.response.start")
    return start["status"], start["headers"], b"".join(m.get("body", b"") for m in sent)


def harmless(headers):
    """Every header that leaves is printable ASCII, and none is of the client's making."""
    for name, value in headers:
        assert all(32 <= c < 127 for c in name + value), (name, value)
        assert b"evil" not in name + value


PLACES = {
    "model": lambda evil: ({**CHAT, "model": evil}, {}),
    "tier of a decision": lambda evil: ({**CHAT, "model": f"auto:{evil}"}, {}),
    "session": lambda evil: (CHAT, {"x-session-id": evil}),
    "key": lambda evil: (CHAT, {"authorization": f"Bearer {evil}"}),
    "scheme": lambda evil: (CHAT, {"authorization": evil}),
    "role": lambda evil: ({**CHAT, "messages": [{"role": evil, "content": "x"}]}, {}),
    "tool type": lambda evil: ({**CHAT, "tools": [{"type": f"stepdown:{evil}"}]}, {}),
    "tool name": lambda evil: ({**CHAT, "tools": [{"type": "function", "function": {"name": f"stepdown_{evil}"}}]}, {}),
    "limit": lambda evil: ({**CHAT, "tools": [{"type": "stepdown:delegate", "parameters": {evil: 1}}]}, {}),
    "content": lambda evil: ({**CHAT, "messages": [{"role": "user", "content": evil}]}, {}),
    "user": lambda evil: ({**CHAT, "user": evil, "metadata": {evil: evil}}, {}),
    "request id": lambda evil: (CHAT, {"x-request-id": evil, "traceparent": evil, "host": evil, "x-forwarded-host": evil}),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/decision"])
def test_nothing_a_client_sends_becomes_a_header(place, path):
    body, headers = PLACES[place](EVIL)
    sent = {"authorization": f"Bearer {KEY}", **headers}
    status, got, _ = raw(app(), path, [(k.encode(), v.encode()) for k, v in sent.items()], json.dumps(body).encode())
    assert status < 500
    harmless(got)


@pytest.mark.parametrize("place", PLACES)
def test_nothing_a_client_sends_is_written_into_the_log(place, caplog):
    caplog.set_level(logging.DEBUG)
    body, headers = PLACES[place](EVIL)
    sent = {"authorization": f"Bearer {KEY}", **headers}
    raw(app(), "/v1/chat/completions", [(k.encode(), v.encode()) for k, v in sent.items()], json.dumps(body).encode())
    for record in caplog.records:
        if record.name != "asyncio":
            said = record.getMessage() + (record.exc_text or "")
            assert "forged line" not in said and KEY not in said.split()


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/" + EVIL,
        "/v1/models/../../etc/passwd",
        "/v1/models//evil.example",
        "/..%2f..%2fetc/passwd",
        "//evil.example/v1/models/",
        "/v1/models/" + "a" * 10_000,
    ],
)
def test_no_path_leads_anywhere_else(path):
    headers = [(b"authorization", f"Bearer {KEY}".encode()), (b"host", b"evil.example")]
    status, got, body = raw(app(), path, headers, method="GET")
    assert status == 404 and b"root:" not in body
    harmless(got)


@pytest.mark.parametrize(
    "path, expected",
    [("/healthz/", 200), ("/v1/models/", 401), ("/v1/chat/completions/", 405), ("//evil.example/", 404), ("/costs/", 404)],
)
def test_no_redirect_is_made_to_a_host_that_the_client_names(path, expected):
    status, got, _ = raw(app(), path, [(b"host", b"evil.example")], method="GET")
    assert status == expected and b"location" not in dict(got)


def test_a_wrong_key_is_not_said_back(client, caplog):
    caplog.set_level(logging.DEBUG)
    answer = client.get("/v1/models", headers={"authorization": "Bearer sk-guess-me-not"})
    assert answer.status_code == 401 and "guess-me-not" not in answer.text + str(answer.headers)
    assert "guess-me-not" not in caplog.text


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "bearer wrong",
        "Bearer right right",
        "Basic right",
        "right",
        "Bearer RIGHT",
        "Bearer righ",
        "Bearer rightt",
    ],
)
@pytest.mark.parametrize(
    "method, path",
    [
        ("GET", "/v1/models"),
        ("GET", "/v1/models/small"),
        ("GET", "/v1/status"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/decision"),
    ],
)
def test_every_endpoint_of_the_api_asks_for_the_key(client, header, method, path):
    assert client.request(method, path, headers={"authorization": header}, json=CHAT).status_code == 401


@pytest.mark.parametrize(
    "fields",
    [
        {"url": "http://169.254.169.254/latest"},
        {"base_url": "http://evil.example"},
        {"api_base": "http://evil.example"},
        {"model": "http://evil.example/v1"},
        {"extra_body": {"url": "http://evil.example"}},
    ],
)
def test_a_request_names_no_address_that_is_asked(client, fields, monkeypatch):
    import aiohttp

    asked = []
    monkeypatch.setattr(aiohttp.ClientSession, "_request", lambda self, method, url, **_: asked.append(url))
    client.post("/v1/chat/completions", json={**CHAT, "model": "small", **fields})
    assert asked == []


def test_a_remote_tier_is_asked_where_the_configuration_says(client):
    answer = client.post("/v1/chat/completions", json={**CHAT, "model": "away", "url": "http://evil.example"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "tier_unavailable")
    assert "127.0.0.1" not in answer.text  # nor does the client learn where that is


def test_more_than_the_limit_is_not_read():
    read = []

    def parts():
        for _ in range(100):
            read.append(1)
            yield b"x" * 1_000

    with TestClient(app(max_body_bytes=5_000), headers={"authorization": f"Bearer {KEY}"}) as small:
        answer = small.post("/v1/chat/completions", content=parts())
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def test_a_fault_of_ours_says_nothing_of_our_insides(monkeypatch):
    broken = app()
    from deployments.endpoint.answering import Answering

    async def fails(self, *_):
        raise ValueError("/srv/secret/path at line 7")

    monkeypatch.setattr(Answering, "answer", fails)
    with TestClient(broken, headers={"authorization": f"Bearer {KEY}"}, raise_server_exceptions=False) as made:
        answer = made.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 500 and "secret" not in answer.text and "Traceback" not in answer.text


def test_half_a_character_in_a_tiers_answer_is_replaced(monkeypatch):
    from deployments.tiers.echo_tier import EchoTier

    whole = EchoTier.complete

    async def halved(self, *given):
        answer = json.loads(await whole(self, *given))
        answer["choices"][0]["message"]["content"] = "half \ud83d"
        return json.dumps(answer).encode()

    monkeypatch.setattr(EchoTier, "complete", halved)
    with TestClient(app_of(router()), headers={"authorization": f"Bearer {KEY}"}, raise_server_exceptions=False) as made:
        answer = made.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 200 and answer.json()["choices"][0]["message"]["content"] == "half \ufffd"


@pytest.mark.slow
@given(st.text(max_size=60))
def test_an_error_message_is_one_line_whatever_model_was_asked_for(client, model):
    answer = client.post("/v1/chat/completions", content=json.dumps({**CHAT, "model": model}))
    message = answer.json().get("error", {}).get("message", "")
    assert all(c.isprintable() for c in message)
