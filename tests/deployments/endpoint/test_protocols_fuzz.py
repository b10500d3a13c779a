"""Bodies of Responses and Messages with parts replaced by anything: refused or answered in the protocol's words, never a 500."""

import copy
import json

import pytest
from fuzzing import ANY, cases, router
from hypothesis import given
from hypothesis import strategies as st
from inprocess import KEY, app_of
from starlette.testclient import TestClient

APP = app_of(router())
INSIDES = ("Traceback", 'File "', "site-packages", "object at 0x")
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": "start: /a+/"}
RESPONSES = [
    {"model": "auto", "input": "hello", "stream": True, "instructions": "short", "max_output_tokens": 20},
    {
        "model": "auto",
        "input": [
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "be brief"}]},
            {"role": "user", "content": [{"type": "input_text", "text": "hi"}, {"type": "input_image", "image_url": "data:,"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "so"}], "encrypted_content": "x"},
            {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
            {"type": "custom_tool_call", "call_id": "c2", "name": "apply_patch", "input": "*** Begin"},
            {"type": "custom_tool_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "done"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a", "annotations": []}]},
            {"role": "user", "content": "and now?"},
        ],
        "tools": [
            {"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": True},
            {"type": "custom", "name": "apply_patch", "format": GRAMMAR},
            {"type": "namespace", "name": "agents", "tools": [{"type": "function", "name": "spawn", "parameters": PARAMETERS}]},
            {"type": "web_search"},
            {"type": "local_shell"},
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"effort": "low", "summary": "auto"},
        "text": {"format": {"type": "json_schema", "name": "a", "schema": PARAMETERS}, "verbosity": "low"},
        "include": ["reasoning.encrypted_content"],
        "store": False,
        "metadata": {"a": "b"},
        "prompt_cache_key": "k",
        "client_metadata": {"x": 1},
        "stream": True,
    },
]
MESSAGES = [
    {"model": "auto", "max_tokens": 20, "messages": [{"role": "user", "content": "hello"}], "stream": True},
    {
        "model": "auto",
        "max_tokens": 32_000,
        "system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "hi"}, {"type": "image", "source": {"type": "url", "url": "a"}}],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "x"},
                    {"type": "redacted_thinking", "data": "y"},
                    {"type": "text", "text": "let me see"},
                    {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Oslo"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "call_1", "content": [{"type": "text", "text": "rain"}]},
                    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}},
                    {"type": "text", "text": "and?"},
                ],
            },
            {"role": "system", "content": "now be long"},
        ],
        "tools": [
            {"name": "weather", "description": "d", "input_schema": PARAMETERS, "cache_control": {"type": "ephemeral"}},
            {"type": "bash_20250124", "name": "bash"},
            {"type": "web_search_20250305", "name": "web_search"},
        ],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "thinking": {"type": "enabled", "budget_tokens": 2_000},
        "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": PARAMETERS}},
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u"},
        "context_management": {"edits": []},
        "temperature": 1,
        "stream": True,
    },
]
SEEDS = {"responses": RESPONSES, "responses/input_tokens": RESPONSES, "messages": MESSAGES, "messages/count_tokens": MESSAGES}


def places(value, before=()):
    """The path of every value within a body."""
    inner = value.items() if isinstance(value, dict) else (enumerate(value) if isinstance(value, list) else ())
    for key, held in inner:
        yield (*before, key)
        yield from places(held, (*before, key))


@st.composite
def mutated(draw, seeds):
    """A body of which a few parts are anything, missing, or twice."""
    body = copy.deepcopy(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 3))):
        if not (found := list(places(body))):
            break
        *way, last = draw(st.sampled_from(found))
        holder = body
        for step in way:
            holder = holder[step]
        match draw(st.integers(0, 5)):
            case 0:
                del holder[last]
            case 1 if isinstance(holder, list):
                holder.insert(last, copy.deepcopy(holder[last]))
            case _:
                holder[last] = draw(ANY)
    return body


@pytest.fixture(scope="module")
def client():
    with TestClient(APP, headers=KEY, raise_server_exceptions=False) as made:
        yield made


@pytest.mark.slow
@given(st.sampled_from(sorted(SEEDS)).flatmap(lambda path: st.tuples(st.just(path), mutated(SEEDS[path]))))
def test_any_body_of_a_protocol_is_answered_or_refused(client, asked):
    cases["protocols"] += 1
    path, body = asked
    answer = client.post(f"/v1/{path}", content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code < 500, answer.text
    if answer.status_code != 200:
        error = answer.json()["error"]
        assert error["message"] and error["type"] and not any(part in answer.text for part in INSIDES)
        assert ("request_id" in answer.json()) == path.startswith("messages")
    elif answer.headers["content-type"].startswith("text/event-stream"):
        *_, last = [block for block in answer.text.split("\n\n") if block]
        ends = ("response.completed", "response.incomplete", "message_stop")
        assert last.split("\n")[0].removeprefix("event: ") in ends, last
    else:
        assert answer.json()
