"""The endpoint held to its own OpenAPI description: whatever is sent, no 500, no hang, no trace of our insides."""

import json
import tempfile
from pathlib import Path

import pytest
import schemathesis
from fuzzing import CHATS, COMPLETIONS, FLAT_TEXTS, cases, raw_json, router
from hypothesis import given
from hypothesis import strategies as st
from inprocess import KEY, app_of
from jsonschema import Draft202012Validator
from kept_answers import database
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from starlette.testclient import TestClient

from deployments.endpoint.doors import health
from deployments.endpoint.routes import openapi

APP = app_of(router(), database(Path(tempfile.mkdtemp(prefix="stepdown-tests-"))))
SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", APP)
PATHS = st.sampled_from(["chat/completions", "completions", "decision"])
INSIDES = ("Traceback", 'File "', "site-packages", "object at 0x", ".py:")
NOT_HELD = [positive_data_acceptance]  # a well-formed request may name an unknown model, or fit no tier's window


@pytest.fixture(scope="module", autouse=True)
def nothing_is_on_its_way():
    """An id that is not there is not waited for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deployments.learning.kept.completion_routes.WAITS_S", ())
        yield


@pytest.fixture(scope="module")
def client():
    with TestClient(APP, headers=KEY, raise_server_exceptions=False) as made:
        yield made


def test_the_description_is_openapi_and_its_schemas_are_schemas():
    for schema in openapi.SCHEMAS.values():
        Draft202012Validator.check_schema(schema)
    SCHEMA.validate()


def path_of(route):
    """As OpenAPI writes it."""
    return getattr(route, "path", "").replace(":path}", "}")


def test_every_path_described_is_there():
    assert set(openapi.all_paths()) <= set(map(path_of, APP.routes))


def test_every_method_described_is_there():
    methods: dict[str, set[str]] = {}
    for route in APP.routes:
        methods.setdefault(path_of(route), set()).update(getattr(route, "methods", None) or ())
    for path, described in openapi.all_paths().items():
        assert {name.upper() for name in described if name != "parameters"} <= methods[path], path


def test_the_description_needs_no_key_and_says_nothing_of_this_server(client):
    told = client.get("/openapi.json", headers={"authorization": ""})
    assert told.status_code == 200 and "medium" not in told.text


@pytest.mark.slow
@SCHEMA.parametrize()
def test_an_operation_answers_as_described(case):
    cases["schemathesis"] += 1
    probes = (*health.READY, *health.STARTED)
    held = [*NOT_HELD, not_a_server_error] if case.path in probes else NOT_HELD  # their 503 is an answer
    answer = case.call(headers={"Authorization": KEY["authorization"]})
    # A URL cannot hold some values, so what is wrong is not sent; and what is too long is refused as too large.
    if answer.status_code == 413 or any(value in (None, [], {}) for value in (case.query or {}).values()):
        held = [*held, negative_data_rejection]
    case.validate_response(answer, excluded_checks=held)


def clean(answer):
    """Refused with OpenAI's error body, or answered whole."""
    assert answer.status_code < 500, answer.text
    if answer.status_code != 200:
        error = answer.json()["error"]
        assert error["message"] and error["code"] and not any(part in answer.text for part in INSIDES)
    elif answer.headers["content-type"].startswith("text/event-stream"):
        assert answer.text.endswith("data: [DONE]\n\n")
        for line in answer.text.split("\n\n"):
            if line.startswith("data: {"):
                assert "error" not in json.loads(line.removeprefix("data: "))
    else:
        json.loads(answer.content)


@pytest.mark.slow
@given(PATHS, raw_json(CHATS) | raw_json(COMPLETIONS) | st.binary(max_size=40))
def test_any_body_is_answered_or_refused(client, path, raw):
    cases["bodies"] += 1
    clean(client.post(f"/v1/{path}", content=raw))


@pytest.mark.slow
@given(st.dictionaries(FLAT_TEXTS, FLAT_TEXTS, max_size=3), FLAT_TEXTS, FLAT_TEXTS)
def test_any_headers_and_paths_are_answered_or_refused(client, headers, session, name):
    cases["headers"] += 1
    body = {"model": "auto", "messages": [{"role": "user", "content": "x"}]}
    sent = {**{f"x-{k}": v for k, v in headers.items()}, "x-session-id": session}
    clean(client.post("/v1/chat/completions", json=body, headers=encoded(sent)))
    clean(client.get("/v1/models/" + "".join(f"%{byte:02x}" for byte in name.encode("utf-8", "replace"))))
    clean(client.get("/v1/models", headers=encoded({"authorization": session})))


NOT_IN_NAMES = bytes(range(33)) + b'()<>@,;:"/[]?={}\\\x7f'


def encoded(headers):
    """As bytes that a client can send: what a header line cannot hold is cut out, as every HTTP library refuses it."""
    names = {name: name.encode("ascii", "ignore").translate(None, NOT_IN_NAMES) for name in headers}
    return [(names[k], v.encode("latin-1", "ignore").translate(None, b"\r\n\0")) for k, v in headers.items()]
