"""The same ladder behind chat, Responses and Messages: one tier, one body, one row, whatever the client speaks."""

import json

import pytest
from collecting import CHAT, Place
from scripted_tier import Said, down

from deployments.ledger import schema

pytestmark = pytest.mark.slow  # most tests open a database

QUESTION = CHAT["messages"][0]["content"]
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}}
CALLS = [{"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}]
CHAT_PATH, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"


def body(path, question=QUESTION, tools=False, **more):
    chat_tool = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": WEATHER}}
    message = [{"role": "user", "content": question}]
    made = {
        CHAT_PATH: {"messages": message, "max_tokens": 400, **({"tools": [chat_tool]} if tools else {})},
        RESPONSES: {
            "input": question,
            "max_output_tokens": 400,
            **({"tools": [{"type": "function", "name": "weather", "description": "d", "parameters": WEATHER}]} if tools else {}),
        },
        MESSAGES: {
            "messages": message,
            "max_tokens": 400,
            **({"tools": [{"name": "weather", "description": "d", "input_schema": WEATHER}]} if tools else {}),
        },
    }
    return {"model": "auto", "temperature": 0, **made[path], **more}


def events(answer):
    """(name, data) of each event of a stream."""
    blocks = [block for block in answer.text.split("\n\n") if block.startswith("event:")]
    return [(b.split("\n")[0][7:], json.loads(b.split("\n")[1][6:])) for b in blocks]


def text_of(path, answer, stream):
    if stream:
        found = events(answer)
        deltas = {"response.output_text.delta": lambda d: d["delta"], "content_block_delta": lambda d: d["delta"].get("text", "")}
        return "".join(deltas[name](data) for name, data in found if name in deltas)
    document = answer.json()
    return document["output"][0]["content"][0]["text"] if path == RESPONSES else document["content"][0]["text"]


@pytest.mark.parametrize("flow", ["", "buffer", "holdback"])
@pytest.mark.parametrize("logprob", [-0.01, -3.0])
def test_three_protocols_are_one_request(tmp_path, flow, logprob):
    place = Place(tmp_path, flow, {"small": Said("it is 42 I think", logprob=logprob), "large": Said("forty two")})
    seen = {}
    with place.client() as client:
        for path in (CHAT_PATH, RESPONSES, MESSAGES):
            answer = client.post(path, json=body(path))
            assert answer.status_code == 200, answer.text
            sent = [{**b, "stream": False} for tier in place.tiers.values() for b in tier.bodies]
            bodies = [json.dumps(b, sort_keys=True) for b in sent]
            told = [answer.headers[f"x-stepdown-{name}"] for name in ("tier", "reason", "cost-usd")]
            seen[path] = told, sorted(b.replace("max_completion_tokens", "max_tokens") for b in bodies)
            for tier in place.tiers.values():
                tier.bodies.clear()
    assert seen[RESPONSES] == seen[MESSAGES] == seen[CHAT_PATH]
    traces = place.rows(schema.traces)
    assert {row["path"] for row in traces} == {"chat/completions", "responses", "messages"}
    assert len({round(row["cost_usd"], 9) for row in traces}) == 1


@pytest.mark.parametrize("path", [RESPONSES, MESSAGES])
@pytest.mark.parametrize("flow", ["", "buffer", "holdback"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("logprob", [-0.01, -3.0])
def test_an_answer_is_the_accepted_one_and_nothing_else(tmp_path, path, flow, stream, logprob):
    place = Place(tmp_path, flow, {"small": Said("secret draft", logprob=logprob), "large": Said("forty two")})
    with place.client() as client:
        answer = client.post(path, json=body(path, stream=stream))
    small = bool(flow) and logprob > -1
    assert text_of(path, answer, stream) == ("secret draft" if small else "forty two")
    assert small or "secret" not in answer.text
    (row,) = place.rows(schema.traces)
    assert row["status"] == 200 and row["path"] == path[4:] and len(place.rows(schema.calls)) == (2 if flow and not small else 1)
    document = answer.json() if not stream else (events(answer)[-1][1].get("response") or events(answer)[-2][1])
    usage = document["usage"]
    assert usage["output_tokens"] == 2 and usage["stepdown"]["cost_usd"] == pytest.approx(row["cost_usd"])
    assert len(usage["stepdown"]["calls"]) == len(place.rows(schema.calls))


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_loop(tmp_path, stream):
    def script(asked):
        return Said("", tool_calls=CALLS, finish="tool_calls") if asked["messages"][-1]["role"] == "user" else Said("It rains.")

    use = {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Oslo"}}
    place = Place(tmp_path, "", {"large": script})
    with place.client() as client:
        first = client.post(RESPONSES, json=body(RESPONSES, tools=True, stream=stream))
        done = events(first)[-1][1]["response"] if stream else first.json()
        (call,) = done["output"]
        assert (call["type"], call["name"], call["call_id"], json.loads(call["arguments"])) == (
            "function_call",
            "weather",
            "call_1",
            {"city": "Oslo"},
        )
        items = [
            {"role": "user", "content": QUESTION},
            call,
            {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
        ]
        second = client.post(RESPONSES, json=body(RESPONSES, tools=True, stream=stream, input=items))
        assert text_of(RESPONSES, second, stream) == "It rains."
        responses_body = place.tiers["large"].bodies[-1]

        first = client.post(MESSAGES, json=body(MESSAGES, tools=True, stream=stream))
        if not stream:
            assert first.json()["stop_reason"] == "tool_use"
            assert first.json()["content"] == [use]
        chat = [
            {"role": "user", "content": QUESTION},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Oslo"}}],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "rain"}]},
        ]
        second = client.post(MESSAGES, json=body(MESSAGES, tools=True, stream=stream, messages=chat))
        assert text_of(MESSAGES, second, stream) == "It rains."
    assert [m["role"] for m in responses_body["messages"]] == ["user", "assistant", "tool"]
    assert [m["role"] for m in place.tiers["large"].bodies[-1]["messages"]] == ["user", "assistant", "tool"]


def test_a_limit_is_a_ceiling(tmp_path):
    """Agents ask for as much as the largest model could write."""
    place = Place(tmp_path)
    with place.client() as client:
        for path, name in ((CHAT_PATH, "max_tokens"), (RESPONSES, "max_output_tokens"), (MESSAGES, "max_tokens")):
            answer = client.post(path, json=body(path) | {name: 128_000})
            assert answer.status_code == 200, answer.text
            sent = place.tiers["large"].bodies[-1]
            limit = sent.get("max_completion_tokens") or sent["max_tokens"]
            assert 90_000 < limit < 100_000, "the window has 100,000"


def test_only_a_prompt_that_does_not_fit_is_an_error_in_words_that_clients_parse(tmp_path):
    place, long = Place(tmp_path), "word " * 100_001
    with place.client() as client:
        chat, responses, messages = (client.post(path, json=body(path, long)) for path in (CHAT_PATH, RESPONSES, MESSAGES))
    assert [a.status_code for a in (chat, responses, messages)] == [400, 400, 400]
    for answer in (chat, responses):
        error = answer.json()["error"]
        assert error["code"] == "context_length_exceeded" and "maximum context length is 100000 tokens" in error["message"]
    error = messages.json()
    assert error["type"] == "error" and error["error"]["type"] == "invalid_request_error"
    assert "prompt is too long: 1000" in error["error"]["message"] and "> 100000 maximum" in error["error"]["message"]


def test_failures_speak_the_protocol(tmp_path):
    place = Place(tmp_path, "", {name: down(name) for name in ("small", "medium", "large")})
    with place.client() as client:
        responses, messages = client.post(RESPONSES, json=body(RESPONSES)), client.post(MESSAGES, json=body(MESSAGES))
        codex = client.post(RESPONSES, json=body(RESPONSES, stream=True), headers={"originator": "codex_exec"})
        nowhere = client.post("/v1/messages/nowhere", json={})
        wrong = client.post(MESSAGES, content=b"{", headers={"content-type": "application/json"})
    assert responses.status_code == 503 and responses.json()["error"]["code"] and int(responses.headers["retry-after"])
    assert messages.status_code == 529 and messages.json()["error"]["type"] == "overloaded_error"
    assert messages.json()["request_id"] and int(messages.headers["retry-after"])
    assert codex.status_code == 200, "else it would ask thirty times"
    name, data = events(codex)[-1]
    assert name == "response.failed" and data["response"]["error"]["code"] == "server_is_overloaded"
    assert nowhere.status_code == 404 and nowhere.json()["error"]["type"] == "not_found_error"
    assert wrong.status_code == 400 and wrong.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", [RESPONSES, MESSAGES])
def test_a_stream_that_breaks_ends_in_a_failure(tmp_path, path):
    place = Place(tmp_path, "", {"large": Said("one two three four", dies_after=2)})
    with place.client() as client:
        answer = client.post(path, json=body(path, stream=True))
    name, data = events(answer)[-1]
    assert name == ("response.failed" if path == RESPONSES else "error")
    assert "completed" not in answer.text and "message_stop" not in answer.text
    assert place.rows(schema.traces)[0]["status"] == 502
    assert "".join(data) and text_of(path, answer, True) == "one two "


@pytest.mark.parametrize("store", ["memory", "ledger"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_continued(tmp_path, store, stream):
    place = Place(tmp_path, sections={"responses": {"store": store}})
    with place.client() as client:
        first = client.post(RESPONSES, json=body(RESPONSES, stream=stream, instructions="Be short."))
        name = (events(first)[-1][1]["response"] if stream else first.json())["id"]
        second = client.post(RESPONSES, json=body(RESPONSES, "And plus one?", previous_response_id=name))
        assert second.status_code == 200, second.text
        said = [(m["role"], m["content"]) for m in place.tiers["large"].bodies[-1]["messages"]]
        assert said == [("user", QUESTION), ("assistant", "42"), ("user", "And plus one?")], "instructions do not carry over"
        kept = client.get(f"{RESPONSES}/{name}")
        assert kept.status_code == 200 and kept.json()["id"] == name and kept.json()["store"] is True
        items = client.get(f"{RESPONSES}/{name}/input_items").json()["data"]
        assert items[0]["content"][0]["text"] == QUESTION
        assert client.delete(f"{RESPONSES}/{name}").json()["deleted"] is True
        gone = client.post(RESPONSES, json=body(RESPONSES, "And?", previous_response_id=name))
        assert gone.status_code == 400 and gone.json()["error"]["code"] == "previous_response_not_found"
        unkept = client.post(RESPONSES, json=body(RESPONSES, store=False)).json()
        assert unkept["store"] is False and client.get(f"{RESPONSES}/{unkept['id']}").status_code == 404


def test_without_a_store_nothing_is_continued(tmp_path):
    with Place(tmp_path).client() as client:
        answer = client.post(RESPONSES, json=body(RESPONSES, store=True))
        assert answer.json()["store"] is False and "store" in answer.headers["x-stepdown-ignored"]
        again = client.post(RESPONSES, json=body(RESPONSES, previous_response_id=answer.json()["id"]))
    assert again.status_code == 400 and "responses.store" in again.json()["error"]["message"]


def test_aliases(tmp_path):
    place = Place(tmp_path, sections={"aliases": {"claude-haiku-*": "small", "claude-*": "auto", "gpt-5.5": "medium"}})
    with place.client() as client:
        answer = client.post(MESSAGES, json=body(MESSAGES, model="claude-haiku-4-5"))
        assert (answer.json()["model"], answer.headers["x-stepdown-tier"]) == ("claude-haiku-4-5", "small")
        answer = client.post(RESPONSES, json=body(RESPONSES, model="gpt-5.5"))
        assert (answer.json()["model"], answer.headers["x-stepdown-tier"]) == ("gpt-5.5", "medium")
        assert client.post(CHAT_PATH, json=body(CHAT_PATH, model="claude-opus-4-8")).headers["x-stepdown-tier"] == "large"
        assert client.post(CHAT_PATH, json=body(CHAT_PATH, model="gpt-6")).status_code == 404
        listed = client.get("/v1/models", headers={"anthropic-version": "2023-06-01"}).json()
        assert {"type": "model", "id": "gpt-5.5"}.items() <= listed["data"][-1].items() and listed["has_more"] is False
        assert client.get("/v1/models/claude-3").json()["id"] == "claude-3"


def test_tokens_are_counted_without_a_tier(tmp_path):
    place = Place(tmp_path)
    with place.client() as client:
        messages = client.post("/v1/messages/count_tokens", json={"model": "auto", "messages": CHAT["messages"]})
        responses = client.post("/v1/responses/input_tokens", json={"model": "auto", "input": QUESTION})
        more = client.post("/v1/messages/count_tokens", json=body(MESSAGES, tools=True))
    assert messages.json()["input_tokens"] == responses.json()["input_tokens"] == len(QUESTION.split())
    assert more.json()["input_tokens"] > messages.json()["input_tokens"]
    assert not any(tier.bodies for tier in place.tiers.values()) and place.rows(schema.traces) == []
