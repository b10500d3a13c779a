"""Whatever a client sends in any place of a body, it is read or refused: no other exception, and a chat comes out."""

import json

import pytest
from messages_client import ABOUT, FakeSeals

from router.errors import BadRequest, RequestFailed
from router.protocols.messages import read
from router.request import wire

CACHED = {"cache_control": {"type": "ephemeral"}}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
PAGE = {"type": "image", "source": {"type": "url", "url": "https://a/b.png"}}
TEXT = {"type": "text", "text": "a", **CACHED}
RICH = {
    "model": "auto",
    "max_tokens": 2000,
    "system": [TEXT],
    "messages": [
        {
            "role": "user",
            "content": [
                IMAGE,
                {"type": "document", "source": {"type": "text", "data": "a"}, "title": "b", "context": "c"},
                {"type": "document", "source": {"type": "content", "content": [TEXT, PAGE]}},
                {"type": "search_result", "title": "a", "source": "b", "content": [TEXT]},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "a", "signature": FakeSeals().signature("a", "small")},
                {"type": "redacted_thinking", "data": FakeSeals().sealed("a", "small")},
                TEXT,
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t1",
                    "is_error": False,
                    "content": [TEXT, IMAGE, {"type": "tool_reference", "tool_name": "f"}],
                },
                TEXT,
            ],
        },
        {"role": "system", "content": "a"},
    ],
    "tools": [
        {"name": "f", "description": "d", "input_schema": {"type": "object"}, "strict": True, "type": "custom"},
        {"type": "bash_20250124", "name": "bash"},
        {"type": "web_search_20250305", "name": "web_search"},
    ],
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 1024, "display": "omitted"},
    "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    "output_format": {"type": "json_schema", "schema": {"type": "object"}},
    "stop_sequences": ["END"],
    "metadata": {"user_id": "u"},
    "temperature": 1,
    "top_p": 0.5,
    "top_k": 3,
    "stream": True,
    "stepdown": {"max_subtasks": 3},
    "context_management": {"edits": []},
}
ODD = (
    None,
    True,
    0,
    -1,
    1.5,
    10**30,
    float("inf"),
    float("nan"),
    "",
    "a",
    "\ud83d",
    "\0",
    "x" * 1000,
    [],
    [[]],
    [None],
    ["a"],
    {},
    {"a": 1},
    {"type": "text"},
    [{"type": "text", "text": 3}],
    [{"type": {}}],
    {"type": []},
)
GONE = object()


def paths(value, path=()):
    """Every place of a body."""
    yield path
    items = value.items() if isinstance(value, dict) else (enumerate(value) if isinstance(value, list) else ())
    for key, held in items:
        yield from paths(held, (*path, key))


def with_odd(value, path, odd):
    """The body with another value in one place, or without what is there."""
    if not path:
        return odd
    key, rest = path[0], path[1:]
    changed = dict(value) if isinstance(value, dict) else list(value)
    if odd is GONE and not rest:
        del changed[key]
    else:
        changed[key] = with_odd(value[key], rest, odd)
    return changed


def outcome(sent, counting):
    """Whether it was read; a refusal names a place."""
    try:
        asked = read(sent, ABOUT, counting)
    except BadRequest as error:
        json.dumps(error.body()).encode()
        return False
    assert all(name.isascii() for name in asked.ignored) and isinstance(asked.session, str)
    json.dumps(asked.body)
    return True


@pytest.mark.slow
@pytest.mark.parametrize("counting", [False, True])
def test_any_place_may_hold_anything(counting):
    assert outcome(RICH, counting)
    found = [outcome(with_odd(RICH, path, odd), counting) for path in paths(RICH) if path for odd in (*ODD, GONE)]
    assert 0.2 < sum(found) / len(found) < 0.8, "both happen often"


def test_what_is_read_can_be_decided():
    """Places are few enough to be tried with one odd value each."""
    for number, path in enumerate(path for path in paths(RICH) if path):
        try:
            chat = read(with_odd(RICH, path, ODD[number % len(ODD)]), ABOUT).body
            wire.parse("chat/completions", json.dumps(chat).encode())
        except RequestFailed as error:
            assert error.status == 400


def test_deep_nesting_is_refused():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {"a": deep}}
    messages = [{"role": "assistant", "content": [call]}, {"role": "user", "content": "hi"}]
    with pytest.raises(BadRequest, match="nests"):
        read({"model": "auto", "max_tokens": 9, "messages": messages}, ABOUT)
