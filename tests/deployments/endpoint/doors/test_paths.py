"""The path that a client means is found, whatever it puts before and behind it; nothing is redirected; WebSocket is refused."""

import asyncio
import json
import socket

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inprocess import KEY, app_of
from live import listening
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from deployments.endpoint.doors.paths import ENDPOINTS, Paths, meant
from deployments.tiers.token_counters import counters
from router.config import Config
from router.engine import Router

PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
CHAT = {"model": "auto", "messages": [{"role": "user", "content": "one two"}]}
BEFORE = ("", "/v1", "/v1/v1", "/openai/v1", "/anthropic/v1")


def app():
    tiers = [{"name": name, "engine": "echo", "context": 2000, "price": PRICE} for name in ("small", "org/large")]
    config = Config.model_validate({"tiers": tiers[:1]})
    return app_of(Router(config, None, counters(config)))


@pytest.fixture(scope="module")
def client():
    with TestClient(app(), headers=KEY, follow_redirects=False) as made:
        yield made


@pytest.mark.parametrize("behind", ["", "/", "?beta=true"])
@pytest.mark.parametrize("before", BEFORE)
def test_a_chat_is_answered_under_every_prefix(client, before, behind):
    answer = client.post(f"{before}/chat/completions{behind}", json=CHAT)
    assert answer.status_code == 200 and answer.json()["choices"][0]["message"]["content"] == "one two"
    assert client.get(f"{before}/models{behind}").json()["object"] == "list"


@pytest.mark.parametrize(
    "sent, path",
    [
        ("//v1//chat///completions//", "/v1/chat/completions"),
        ("/v1/models/org/name", "/v1/models/org/name"),
        ("/v1/models/v1/models", "/v1/models/v1/models"),
        ("/models/chat", "/v1/models/chat"),
        ("/v1/messages/count_tokens/", "/v1/messages/count_tokens"),
        ("/anthropic/v1/messages", "/v1/messages"),
        ("/responses/resp_1", "/v1/responses/resp_1"),
        ("/rerank", "/v1/rerank"),
        ("/v2/rerank", "/v1/rerank"),
        ("/v2/chat/completions", "/v2/chat/completions"),
        ("/v1/v1/v1/models", "/v1/v1/v1/models"),
        ("/openai/models", "/openai/models"),
        ("/v1", "/v1"),
        ("/", "/"),
        ("", "/"),
        ("//", "/"),
        ("/healthz/", "/healthz"),
        ("/v1/healthz", "/v1/healthz"),
        ("/openapi.json", "/openapi.json"),
        ("/costs/", "/costs/"),
        ("/costs//traces/a/", "/costs//traces/a/"),
        ("/costs.json", "/costs.json"),
    ],
)
def test_what_is_meant(sent, path):
    assert meant(sent) == path


WORDS = st.sampled_from(["", "v1", "v2", "openai", "anthropic", "costs", "a", *sorted(ENDPOINTS)])


@given(st.lists(WORDS, max_size=6))
def test_what_was_found_is_meant_by_itself_and_begins_with_one_slash(words):
    found = meant("/" + "/".join(words))
    assert found.startswith("/") and not found.startswith("//") or "costs" in words
    if not found.startswith("/v1/v1/"):
        assert meant(found) == found


def test_ids_with_a_slash_are_looked_up(client):
    answer = client.get("/v1/models/org/name")
    assert answer.status_code == 404 and "org/name" in answer.json()["error"]["message"]
    assert client.get("/v1/models/small").json()["id"] == "small"


def test_no_key_is_needed_less_by_another_path(client):
    for before in BEFORE:
        assert client.get(f"{before}/models", headers={"authorization": ""}).status_code == 401
        assert client.post(f"{before}/admin//reload/", headers={"authorization": ""}).status_code == 401


def test_every_path_that_is_read_can_be_asked_for_its_head(client):
    paths = [route.path for route in client.app.routes if "GET" in (getattr(route, "methods", None) or ())]
    assert len(paths) > 10
    for path in paths:
        path = path.replace("{name:path}", "small").replace("{id}", "none")
        assert client.head(path).status_code == client.get(path).status_code, path


@pytest.mark.parametrize("path", ["/proxy/v1/v1/models", "/proxy/models/", "/proxy/v1/models"])
def test_a_prefix_under_which_the_server_is_mounted_stays(path):
    inner = Paths(Starlette(routes=[Route("/v1/models", lambda request: PlainTextResponse("here"))]))
    assert TestClient(Starlette(routes=[Mount("/proxy", inner)])).get(path).text == "here"


# -- WebSocket ---------------------------------------------------------------------------------------------------------------

HANDSHAKE = [
    "GET {path} HTTP/1.1",
    "host: localhost",
    "connection: Upgrade",
    "upgrade: {what}",
    "sec-websocket-version: 13",
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
    "authorization: Bearer right",
]


def answered(port: int, path: str, what: str = "websocket") -> tuple[int, bytes]:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as to:
        to.sendall("\r\n".join([*HANDSHAKE, "", ""]).format(path=path, what=what).encode())
        to.settimeout(2)
        got = b""
        while b"\r\n\r\n" not in got or not got.split(b"\r\n\r\n", 1)[1].strip():
            if not (piece := to.recv(65_536)):
                break
            got += piece
    head, _, body = got.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@pytest.mark.slow
@pytest.mark.parametrize("ws", ["auto", "websockets-sansio", "wsproto", "none"])
def test_a_handshake_is_answered_by_426_whether_or_not_the_server_knows_websocket(ws):
    with listening(app(), ws=ws) as port:
        for path in ("/v1/responses", "/responses", "/v1/realtime?model=x"):
            status, body = answered(port, path)
            assert status == 426 and b"upgrade_required" in body
        assert answered(port, "/healthz", "h2c")[0] == 200  # curl offers HTTP/2 so, and takes HTTP/1.1
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200


def test_where_a_server_cannot_say_why_the_handshake_is_closed():
    sent = []

    async def send(message):
        sent.append(message)

    async def ask():
        await Paths(Starlette())({"type": "websocket", "path": "/v1/responses", "headers": []}, None, send)

    asyncio.run(ask())
    assert [message["type"] for message in sent] == ["websocket.close"] and "POST" in json.dumps(sent)
