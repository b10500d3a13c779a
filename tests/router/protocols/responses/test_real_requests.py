"""Requests that real clients sent on 2026-11-30, with long texts and most tools cut."""

import json

import pytest
from asking import about

from router.protocols.responses import previous, read
from router.request import wire

WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
FORM = {"type": "json_schema", "strict": True, "name": "P", "schema": WEATHER}


def developer(*texts):
    return {
        "type": "message",
        "id": "msg_1",
        "role": "developer",
        "content": [{"type": "input_text", "text": text} for text in texts],
    }


def user(text):
    return {"type": "message", "id": "msg_2", "role": "user", "content": [{"type": "input_text", "text": text}]}


EXEC = {
    "type": "function",
    "name": "exec_command",
    "description": "Runs a command in a PTY.",
    "strict": False,
    "parameters": {
        "type": "object",
        "properties": {"cmd": {"type": "string"}},
        "required": ["cmd"],
        "additionalProperties": False,
    },
}
CODEX = {
    "model": "auto",
    "stream": True,
    "input": [developer("<permissions>"), developer("<skills>", "<environment>"), user("AGENTS.md"), user("say hello")],
    "tools": [
        EXEC,
        {
            "type": "namespace",
            "name": "multi_agent_v1",
            "description": "Agents.",
            "tools": [
                {"type": "function", "name": "spawn_agent", "strict": False, "parameters": {"type": "object", "properties": {}}}
            ],
        },
        {"type": "web_search", "external_web_access": False},
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"summary": "auto"},
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "01234567-89ab",
    "client_metadata": {"thread_id": "01234567-89ab", "x-codex-window-id": "01234567-89ab:0"},
}
PATCH = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edits files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: begin_patch"},
}
CODEX_KNOWN = {
    **CODEX,
    "model": "gpt-5.5",
    "tools": [EXEC, PATCH, {"type": "tool_search", "execution": "client", "parameters": {}}, {"type": "web_search"}],
    "reasoning": {"effort": "medium"},
    "text": {"verbosity": "low"},
}
REQUESTS = {
    "ai-sdk": {"model": "auto", "input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]},
    "ai-sdk tools": {
        "model": "auto",
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "USE_TOOL"}]}],
        "tools": [{"type": "function", "name": "get_weather", "description": "w", "parameters": WEATHER}],
        "tool_choice": "auto",
    },
    "ai-sdk stream": {
        "model": "auto",
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
        "stream": True,
    },
    "ai-sdk object": {
        "model": "auto",
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
        "text": {"format": FORM},
    },
    "codex": CODEX,
    "codex gpt-5.5": CODEX_KNOWN,
    "dspy": {"model": "auto", "input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}], "stream": False},
    "langchain": {"model": "auto", "stream": False, "input": [{"content": "hi", "role": "user", "type": "message"}]},
    "litellm": {"model": "auto", "input": "hi"},
    "agents": {
        "model": "auto",
        "include": [],
        "input": [{"content": "USE_TOOL", "role": "user"}],
        "instructions": "be brief",
        "tools": [{"name": "get_weather", "parameters": WEATHER, "strict": True, "type": "function", "description": ""}],
    },
    "openai-js stream": {"model": "auto", "input": "hi", "stream": True},
    "openai-py stream tools": {
        "model": "auto",
        "stream": True,
        "input": "hi",
        "tools": [{"type": "function", "name": "P", "parameters": WEATHER}],
    },
    "openai-py parse": {"model": "auto", "input": "hi", "text": {"format": FORM}},
    "openai-py more": {"model": "auto", "input": "more", "previous_response_id": "resp_66174825261f6"},
    "pydantic-ai": {
        "input": [{"role": "user", "content": "hi"}],
        "model": "auto",
        "stream": False,
        "tool_choice": "required",
        "tools": [{"name": "final_result", "parameters": WEATHER, "type": "function", "description": "The end.", "strict": True}],
    },
}


@pytest.mark.parametrize("body", REQUESTS.values(), ids=REQUESTS)
def test_what_clients_send_is_read_and_the_chat_layer_takes_it(body):
    edge = read(body, about())
    request = wire.parse("chat/completions", json.dumps(edge.body).encode())
    assert request.stream == bool(body.get("stream")) and request.body["messages"][-1]["role"] == "user"
    assert previous(body) == body.get("previous_response_id")


def test_clients_that_say_the_same_send_the_same_chat():
    names = ("ai-sdk", "dspy", "langchain", "litellm")
    said = [[{**m, "content": "hi"} for m in read(REQUESTS[name], about()).body["messages"]] for name in names]
    bodies = [{**read(REQUESTS[name], about()).body, "messages": said[0]} for name in names]
    assert all(body == bodies[0] for body in bodies) and all(messages == said[0] for messages in said)


def test_codexs_request_as_a_chat():
    edge = read(CODEX, about())
    assert edge.body["messages"] == [
        {"role": "system", "content": "<permissions>\n\n<skills>\n\n<environment>"},
        {"role": "user", "content": "AGENTS.md"},
        {"role": "user", "content": "say hello"},
    ]
    assert [tool["function"]["name"] for tool in edge.body["tools"]] == ["exec_command", "multi_agent_v1__spawn_agent"]
    assert edge.ignored == ("client_metadata", "tools.web_search") and edge.session == "01234567-89ab"


def test_codexs_tools_for_a_known_model():
    edge = read(CODEX_KNOWN, about())
    assert [tool["function"]["name"] for tool in edge.body["tools"]] == ["exec_command", "apply_patch"]
    assert edge.body["reasoning_effort"] == "medium"
    assert edge.ignored == ("text.verbosity", "client_metadata", "tools.tool_search", "tools.web_search")
