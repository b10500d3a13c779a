"""Pages of other origins: every path of the API answers their preflight without a key, and they may read all that it says."""

import ast
import re
from pathlib import Path

import pytest
from inprocess import KEY, app_of
from kept_answers import database
from starlette.testclient import TestClient

from deployments.costs import routes as costs
from deployments.endpoint.doors.pages import METHODS, OWN, SHOWN
from deployments.tiers.token_counters import counters
from router.config import Config
from router.engine import Router

ROOT = Path(__file__).parents[4]
PAGE = "https://chat.example"
PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
CHAT = {"model": "auto", "messages": [{"role": "user", "content": "one two"}]}
NEW = "authorization, x-api-key, content-type, x-stainless-helper-method, anthropic-version"


async def allowed(*_):
    """Everybody, at once."""


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    tiers = [{"name": "small", "engine": "echo", "context": 2000, "price": PRICE}]
    config = Config.model_validate({"tiers": tiers, "server": {"cors": [PAGE]}})
    engine = database(tmp_path_factory.mktemp("kept"))
    app = app_of(Router(config, None, counters(config)), engine)
    app.router.routes.extend(costs.routes(engine, config, dict, allowed, allowed))
    with TestClient(app, headers=KEY) as made:
        yield made


def preflight(client, path, method="POST"):
    asked = {"origin": PAGE, "access-control-request-method": method, "access-control-request-headers": NEW}
    return client.options(path, headers={**asked, "authorization": ""})


def paths(client):
    return sorted({route.path for route in client.app.routes})


def test_every_path_but_the_operators_answers_a_preflight_without_a_key(client):
    shared = [path for path in paths(client) if not path.startswith(OWN)]
    assert len(shared) > 10
    for path in (*shared, "/v1/responses", "/v1/messages", "/chat/completions/", "/v1/v1/models"):
        for method in METHODS:
            answer = preflight(client, path, method)
            assert answer.status_code in (200, 204) and answer.headers["access-control-allow-origin"] == PAGE
            assert set(METHODS) == {name.strip() for name in answer.headers["access-control-allow-methods"].split(",")}
            assert answer.headers["access-control-allow-headers"] == NEW and "Origin" in answer.headers["vary"]


def test_what_is_the_operators_is_for_no_page(client):
    own = [path for path in paths(client) if path.startswith(OWN)]
    assert len(own) > 5
    for path in (*own, "/admin/reload", "/v1//admin//reload/"):
        assert "access-control-allow-origin" not in preflight(client, path).headers
        answer = client.get(path, headers={"origin": PAGE})
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "path, changes, status",
    [
        ("/v1/chat/completions", {}, 200),
        ("/v1/chat/completions", {"stream": True}, 200),
        ("/v1/chat/completions", {"model": "nobody"}, 404),
        ("/v1/chat/completions", {"messages": 7}, 400),
        ("/v1/nothing", {}, 404),
        ("/v1/models", {}, 405),
        ("/readyz", {}, 405),
    ],
)
def test_answers_errors_and_streams_are_shared(client, path, changes, status):
    for origin, given in ((PAGE, PAGE), ("https://evil.example", None)):
        answer = client.post(path, json={**CHAT, **changes}, headers={"origin": origin})
        assert answer.status_code == status and answer.headers.get("access-control-allow-origin") == given
        assert "origin" in answer.headers["vary"].lower() and "access-control-allow-credentials" not in answer.headers
    unknown = client.post(path, json=CHAT, headers={"origin": PAGE, "authorization": "Bearer wrong"})
    assert unknown.headers["access-control-allow-origin"] == PAGE


def test_every_header_of_ours_may_be_read():
    found = set()
    for file in (ROOT / "deployments").rglob("*.py"):
        texts = [node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)]
        found |= {text for text in texts if isinstance(text, str) and re.fullmatch(r"x-stepdown-[a-z-]*[a-z]", text)}
    assert len(found) > 8 and found <= set(SHOWN)
    assert {"x-request-id", "request-id", "retry-after", "x-stepdown-ignored", "x-stepdown-warning"} <= set(SHOWN)
