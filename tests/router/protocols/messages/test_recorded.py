"""What clients really send is read, and is a chat that the router takes."""

import json

import pytest
from messages_client import ABOUT

from router.errors import BadRequest
from router.protocols.messages import read
from router.request import wire

USER = {"role": "user", "content": "hi"}
CACHED = {"cache_control": {"type": "ephemeral"}}
TITLE = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"], "additionalProperties": False}
WEATHER = {
    "name": "get_weather",
    "description": "w",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
SYSTEM = [
    {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.197.484; cc_entrypoint=sdk-cli;"},
    {"type": "text", "text": "You are a Claude agent.", **CACHED},
    {"type": "text", "text": "Be short.", **CACHED},
]
CLAUDE_CODE = {
    "model": "claude-sonnet-4-5",
    "messages": [{"role": "user", "content": [{"type": "text", "text": "<reminder>"}, {"type": "text", "text": "hi", **CACHED}]}],
    "system": SYSTEM,
    "tools": [{"name": "Bash", "description": "d", "input_schema": {"$schema": "x", "type": "object", "properties": {}}}],
    "metadata": {"user_id": '{"device_id":"d","account_uuid":"","session_id":"s"}'},
    "max_tokens": 32000,
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "stream": True,
}
# What clients sent, with long texts cut: Claude Code 2.1.197, anthropic-py 2.14, anthropic-js 1.14, AI SDK 6, litellm 1.110,
# langchain-anthropic 1.7.
RECORDED = {
    "claude code, title": {
        **CLAUDE_CODE,
        "tools": [],
        "thinking": {"type": "disabled"},
        "temperature": 1,
        "output_config": {"format": {"type": "json_schema", "schema": TITLE}},
    },
    "claude code, title with effort": {
        **CLAUDE_CODE,
        "tools": [],
        "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": TITLE}},
    },
    "claude code, turn": {**CLAUDE_CODE, "thinking": {"budget_tokens": 31999, "type": "enabled"}},
    "claude code, opus": {
        **CLAUDE_CODE,
        "model": "claude-opus-4-8",
        "messages": [*CLAUDE_CODE["messages"], {"role": "system", "content": "In the middle."}],
        "max_tokens": 64000,
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "high"},
    },
    "anthropic, least": {"max_tokens": 2000, "messages": [USER], "model": "auto"},
    "anthropic, thinking": {
        "max_tokens": 2000,
        "messages": [USER],
        "model": "auto",
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "stream": True,
    },
    "anthropic, parse": {
        "max_tokens": 2000,
        "messages": [USER],
        "model": "auto",
        "output_config": {"format": {"schema": TITLE, "type": "json_schema"}},
    },
    "anthropic, tool without description": {
        "model": "auto",
        "max_tokens": 50,
        "messages": [USER],
        "tools": [{"name": "t", "input_schema": {"type": "object"}}],
        "stream": True,
    },
    "ai sdk, tool": {
        "model": "auto",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "tools": [WEATHER],
        "tool_choice": {"type": "auto"},
    },
    "litellm": {
        "model": "auto",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "max_tokens": 128000,
    },
    "langchain": {"max_tokens": 500, "messages": [USER], "model": "auto", "tools": [WEATHER]},
}
COUNTED = {
    "claude code": {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": "foo"}], "tools": [WEATHER]},
    "claude code, a call alone": {
        "model": "claude-sonnet-4-5",
        "messages": [
            USER,
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "get_weather", "input": {}}]},
        ],
    },
    "anthropic": {"messages": [USER], "model": "auto"},
}


def passes(chat):
    """Whether the router takes it as a chat."""
    return wire.parse("chat/completions", json.dumps(chat).encode())


@pytest.mark.parametrize("name", RECORDED)
def test_what_clients_send_is_read(name):
    sent = RECORDED[name]
    asked = read(sent, ABOUT)
    assert passes(asked.body).stream == bool(sent.get("stream"))
    assert (asked.body["model"], asked.body["max_completion_tokens"]) == (sent["model"], sent["max_tokens"])
    assert len(asked.body.get("tools", [])) == len(sent.get("tools", [])) and asked.prefill is False


@pytest.mark.parametrize("name", COUNTED)
def test_counting_needs_no_limit(name):
    assert "max_completion_tokens" not in read(COUNTED[name], ABOUT, counting=True).body
    with pytest.raises(BadRequest, match="max_tokens"):
        read(COUNTED[name], ABOUT)


def test_a_whole_turn_of_claude_code():
    asked = read(RECORDED["claude code, opus"], ABOUT)
    assert asked.body == {
        "model": "claude-opus-4-8",
        "messages": [
            {"role": "system", "content": "You are a Claude agent.\n\nBe short."},
            {"role": "user", "content": [{"type": "text", "text": "<reminder>"}, {"type": "text", "text": "hi"}]},
            {"role": "system", "content": "In the middle."},
        ],
        "max_completion_tokens": 64000,
        "reasoning_effort": "high",
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "Bash",
                    "description": "d",
                    "parameters": {"$schema": "x", "type": "object", "properties": {}},
                },
            }
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert asked.session == CLAUDE_CODE["metadata"]["user_id"]
    assert set(asked.ignored) == {"cache_control", "context_management"}
