"""Keys and paths as clients send them, on a served ladder."""

import httpx
import pytest

from tests.clients.ladder import ladder

pytestmark = pytest.mark.slow

HELLO = {"model": "auto", "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]}
WEBSOCKET = {
    "upgrade": "websocket",
    "connection": "upgrade",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    "sec-websocket-version": "13",
}
PATHS = ["/v1/messages", "/v1/messages/", "//v1//messages", "/v1/v1/messages", "/messages", "/anthropic/v1/messages"]


def post(served, path="/v1/messages", key="full", name="x-api-key", body=HELLO, **headers):
    value = f"Bearer {served.keys[key]}" if name == "authorization" else served.keys[key]
    return httpx.post(f"{served.origin}{path}", json=body, headers={name: value, **headers}, timeout=30, follow_redirects=False)


@pytest.mark.parametrize("name", ["authorization", "x-api-key", "api-key"])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
def test_a_key_counts_in_every_header(served, name, path):
    assert post(served, path, name=name).status_code == 200
    (trace,) = served.seen().traces
    assert trace["key_id"].startswith("key-")


def test_a_limit_holds_by_x_api_key(served):
    statuses = [post(served, key="limited").status_code for _ in range(4)]
    assert 429 in statuses and post(served).status_code == 200


def test_the_first_known_key_counts(served):
    assert post(served, authorization="Bearer sk-ant-somebody-elses").status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_found_however_it_is_written(served, path):
    answer = post(served, path + "?beta=true")
    assert answer.status_code == 200 and answer.json()["type"] == "message", answer.text


def test_errors_speak_the_protocol_of_their_path(served):
    wrong = {"x-api-key": "wrong"}
    found = httpx.post(f"{served.url}/messages", json=HELLO, headers=wrong)
    assert found.status_code == 401 and found.json()["type"] == "error"
    found = httpx.post(f"{served.url}/responses", json={"model": "auto", "input": "x"}, headers=wrong)
    assert found.status_code == 401 and found.json()["error"]["code"] == "invalid_api_key"
    assert httpx.get(f"{served.url}/responses", headers=WEBSOCKET).status_code == 426


@pytest.mark.parametrize("path", ["/", "/healthz", "/livez", "/readyz", "/health", "/ping", "/startupz"])
def test_health_is_told_to_get_and_head(served, path):
    assert httpx.get(served.origin + path).status_code == httpx.head(served.origin + path).status_code == 200


def test_what_is_kept_belongs_to_its_key(tmp_path):
    """Answers are continued and their items named by the key that asked, and by no other."""
    with ladder(tmp_path, responses={"store": "memory"}) as served:

        def respond(key, **body):
            headers = {"authorization": f"Bearer {served.keys[key]}"}
            return httpx.post(f"{served.url}/responses", json={"model": "auto", **body}, headers=headers, timeout=30)

        first = respond("full", input="hello").json()
        named = [{"type": "item_reference", "id": first["output"][0]["id"]}, {"role": "user", "content": "more"}]
        for more in ({"previous_response_id": first["id"], "input": "more"}, {"input": named}):
            assert respond("full", **more).status_code == 200
            refused = respond("other", **more)
            assert refused.status_code == 400 and "hello" not in refused.text
