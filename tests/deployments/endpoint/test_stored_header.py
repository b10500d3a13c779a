"""What a reply says of being kept is what happened: the header for each consent, and the reply's id."""

import pytest
from collecting import CHAT, Place, ask, chunks
from scripted_tier import Said, down

from deployments.endpoint.openai_json import ReplyId
from deployments.learning.kept import collector as collecting
from deployments.ledger import schema

pytestmark = pytest.mark.slow  # most tests open a database


def kept(place):
    return [row["id"] for row in place.rows()]


@pytest.mark.parametrize(
    "collect, key, store, header",
    [
        ("off", "all", None, None),
        ("off", "all", True, "no; operator"),
        ("off", "all", False, None),
        ("consented", "never", None, "no; key"),
        ("consented", "never", True, "no; key"),
        ("consented", "never", False, "no; request"),
        ("consented", "marked", None, "no; request"),
        ("consented", "marked", True, "yes"),
        ("consented", "marked", False, "no; request"),
        ("consented", "all", None, "yes"),
        ("consented", "all", True, "yes"),
        ("consented", "all", False, "no; request"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_the_header_tells_what_becomes_of_a_request(tmp_path, collect, key, store, header, stream):
    place = Place(tmp_path, collect=collect, own_key=key)
    with place.client() as client:
        answer = ask(client, store=store, stream=stream)
    assert answer.headers.get("x-stepdown-stored") == header
    trace = answer.headers["x-stepdown-trace-id"]
    ids = {chunk["id"] for chunk in chunks(answer)} if stream else {answer.json()["id"]}
    assert ids == ({f"chatcmpl-{trace}"} if header == "yes" else {"scripted"})
    assert kept(place) == ([f"chatcmpl-{trace}"] if header == "yes" else [])


@pytest.mark.parametrize("flow", ["", "buffer", "holdback"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("logprob", [-0.01, -3.0])
def test_the_replys_id_is_the_one_that_is_kept(tmp_path, flow, stream, logprob):
    place = Place(tmp_path, flow, {"small": Said("it is 42 I think", logprob=logprob)})
    with place.client() as client:
        answer = ask(client, stream=stream, stream_options={"include_usage": True} if stream else None)
    trace = answer.headers["x-stepdown-trace-id"]
    parts = chunks(answer) if stream else [answer.json()]
    assert {part["id"] for part in parts} == {f"chatcmpl-{trace}"} and f"chatcmpl-{trace}" in kept(place)
    assert not stream or parts[-1]["usage"]["total_tokens"]


def test_what_cannot_be_kept_is_not(tmp_path):
    place = Place(tmp_path)
    with place.client() as client:
        several = ask(client, n=2, store=True)
        text = client.post("/v1/completions", json={"model": "small", "prompt": "x", "messages": None})
    assert several.headers["x-stepdown-stored"] == "no; request" and several.json()["id"] == "scripted"
    assert kept(place) == [] and text.status_code == 400


def test_a_full_queue_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(collecting, "MOST_BYTES", 10)
    place = Place(tmp_path)
    with place.client() as client:
        answer = ask(client, store=True)
    assert answer.headers["x-stepdown-stored"] == "no; full" and answer.json()["id"] == "scripted"
    assert kept(place) == [] and place.dropped == {"full": 1}


def test_a_hook_that_is_known_to_be_broken_is_told(tmp_path):
    place = Place(tmp_path, redact="redactions:broken")
    with place.client() as client:
        answer = ask(client, store=True)
    assert answer.headers["x-stepdown-stored"] == "no; redaction" and kept(place) == []
    assert place.dropped == {"redaction": 1}


@pytest.mark.parametrize("said", [down("large"), Said("one two three", dies_after=1)])
@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_is_not_kept(tmp_path, said, stream):
    place = Place(tmp_path, said=dict.fromkeys(("small", "medium", "large"), said))
    with place.client() as client:
        answer = client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
    whole = answer.status_code == 200 and "error" not in answer.text  # only a stream dies on its way
    assert kept(place) == [] or whole
    assert answer.status_code == 200 or "x-stepdown-stored" not in answer.headers


def test_without_a_ledger_a_store_is_refused_openly(tmp_path):
    from deployments.endpoint.accounts import without_books
    from deployments.endpoint.ingress import Ingress

    place = Place(tmp_path)
    place.ingress = Ingress(place.router, place.tiers, without_books(), 1_000_000)
    with place.client() as client:
        assert ask(client, store=True).headers["x-stepdown-stored"] == "no; operator"
        assert "x-stepdown-stored" not in ask(client).headers


def test_the_status_page_and_the_key_say_it(tmp_path):
    place = Place(tmp_path, own_key="marked")
    with place.client() as client:
        told = client.get("/v1/status").json()["learning"]
        assert (told["collect"], told["kept"], told["dropped"]) == ("consented", 0, {})
        shown = client.get("/v1/key").json()
    assert (shown["id"], shown["learning"], shown["collect"]) == ("nobody", "marked", "consented")
    assert shown["rights"] == ["admin", "costs", "learn"] and shown["usd_per_day"] is None


def test_calls_name_their_model(tmp_path):
    place = Place(tmp_path)
    with place.client() as client:
        ask(client)
    assert [row["model"] for row in place.rows(schema.calls)] == ["print-of-large"]


# -- ids, in bytes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b'{"id":"a","choices":[{"message":{"content":"say \\"id\\":\\"a\\""}}]}',
        b'{"object":"x", "id" : "a", "choices": []}',
        b'{"choices": [], "id": ""}',
        b'{"choices": []}',
        b'{"id": 5}',
        b'{"id": "\\u00e4"}',
    ],
)
def test_a_document_gets_its_id_and_nothing_else(raw):
    import json

    body = json.loads(raw)
    assert json.loads(ReplyId("chatcmpl-1").document(raw, body)) == {**body, "id": "chatcmpl-1"}


def test_every_event_gets_the_id_whatever_the_tier_says():
    import json

    tell = ReplyId("chatcmpl-1")
    items = [
        b'data: {"id":"","choices":[{"delta":{"tool_calls":[{"id":""}]}}]}\n\n',
        b'data: {"id":"a","choices":[{"delta":{"content":"x"}}]}\n\n',
        b'data: {"id":"a","choices":[]}\n\ndata: {"id":"a","choices":[]}\n\n',
        b'data: {"id":"b","choices":[]}\n\ndata: {"id":"a","choices":[]}\n\n: waiting\n\n',
        b'data: {"choices":[{"delta":{"content":"data: {\\"id\\":\\"a\\"}"}}]}\n\n',
        b": waiting\n\n",
    ]
    given = b"".join(tell.events(item) for item in items)
    found = [json.loads(block[5:]) for block in given.split(b"\n\n") if block.startswith(b"data:")]
    assert [data["id"] for data in found] == ["chatcmpl-1"] * 7
    assert found[0]["choices"][0]["delta"]["tool_calls"] == [{"id": ""}]
    assert found[6]["choices"][0]["delta"]["content"] == 'data: {"id":"a"}' and given.count(b": waiting\n\n") == 2
