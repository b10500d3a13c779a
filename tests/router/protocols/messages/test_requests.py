"""Bodies of Messages as chat bodies."""

import pytest
from messages_client import ABOUT

from router.errors import BadRequest, NoThread
from router.protocols.messages import read

USER = {"role": "user", "content": "hi"}
LEAST = {"model": "auto", "max_tokens": 100, "messages": [USER]}
SCHEMA = {"type": "object", "properties": {"title": {"type": "string"}}}
SYSTEM = [
    {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.197.484; cc_entrypoint=sdk-cli;"},
    {"type": "text", "text": "You are a Claude agent.", "cache_control": {"type": "ephemeral"}},
    {"type": "text", "text": "Be short."},
]


def body(**more):
    return read({**LEAST, **more}, ABOUT).body


@pytest.mark.parametrize(
    "system, expected",
    [
        ("Be short.", "Be short."),
        (SYSTEM, "You are a Claude agent.\n\nBe short."),
        ([], None),
        ("", None),
        (None, None),
        (SYSTEM[:1], None),
    ],
)
def test_system(system, expected):
    messages = body(system=system)["messages"]
    assert messages == ([{"role": "system", "content": expected}] if expected else []) + [USER]


@pytest.mark.parametrize("field", ["output_format", "output_config"])
def test_a_schema_is_nested(field):
    given = {"type": "json_schema", "schema": SCHEMA}
    made = body(**{field: given if field == "output_format" else {"format": given}})
    assert made["response_format"] == {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    assert field not in made


def test_sampling():
    made = body(temperature=0.5, top_p=1, top_k=40, stop_sequences=["END"])
    assert (made["temperature"], made["top_p"], made["top_k"], made["stop"]) == (0.5, 1, 40, ["END"])
    none = body(temperature=None, top_p=None, top_k=None, stop_sequences=[])
    assert set(none) == {"model", "messages", "max_completion_tokens"}


def test_fields_of_vllm_and_ours_pass_and_those_that_make_several_answers_do_not():
    own = {"stepdown": {"max_cost_usd": 1}, "min_p": 0.1, "chat_template_kwargs": {"a": 1}, "seed": 3}
    asked = read({**LEAST, **own, "n": 5, "logprobs": True, "prompt": "x", "echo": True}, ABOUT)
    assert own.items() <= asked.body.items() and not {"n", "logprobs", "prompt", "echo"} & set(asked.body)
    assert set(asked.ignored) == {"n", "logprobs", "prompt", "echo"}


def test_what_does_nothing_is_told_and_never_refused():
    more = {
        "context_management": {"edits": []},
        "service_tier": "auto",
        "betas": ["b"],
        "metadata": {"team": "x"},
        "new": 1,
        "container": None,
        "mcp_servers": [],
        "bad\r\nname": 1,
        "x" * 65: 1,
    }
    asked = read({**LEAST, **more}, ABOUT)
    assert set(asked.ignored) == {"context_management", "service_tier", "betas", "metadata", "new"}
    assert set(asked.body) == {"model", "messages", "max_completion_tokens"} and asked.session == ""


def test_the_header_of_what_does_nothing_stays_short():
    assert len(read({**LEAST, **{f"field_{i}": 1 for i in range(500)}}, ABOUT).ignored) == 30


def test_a_last_message_of_the_assistant_is_continued():
    asked = read({**LEAST, "messages": [USER, {"role": "assistant", "content": "The answer is ("}]}, ABOUT)
    assert asked.prefill and asked.body["messages"][-1] == {"role": "assistant", "content": "The answer is ("}
    assert (asked.body["add_generation_prompt"], asked.body["continue_final_message"]) == (False, True)


@pytest.mark.parametrize("content", ["", [], [{"type": "thinking", "thinking": "x", "signature": "theirs"}]])
def test_an_empty_last_message_begins_nothing(content):
    asked = read({**LEAST, "messages": [USER, {"role": "assistant", "content": content}]}, ABOUT)
    assert not asked.prefill and asked.body["messages"] == [USER] and "continue_final_message" not in asked.body


def test_a_call_without_its_result_cannot_be_continued():
    call = {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {}}]}
    with pytest.raises(BadRequest, match="tool_result"):
        read({**LEAST, "messages": [USER, call]}, ABOUT)


@pytest.mark.parametrize(
    "wrong, named",
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": "100"}, "max_tokens"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
        ({"system": 3}, "system"),
        ({"system": [{"type": "image"}]}, "system[0].type"),
        ({"temperature": 1.5}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": "1"}, "top_p"),
        ({"top_k": 1.5}, "top_k"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"stream": "yes"}, "stream"),
        ({"output_config": []}, "output_config"),
        ({"output_config": {"effort": 3}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "json_object"}}}, "output_config.format.type"),
        ({"output_format": {"type": "json_schema"}}, "output_format.schema"),
        ({"tools": {}}, "tools"),
    ],
)
def test_a_wrong_field_is_named(wrong, named):
    with pytest.raises(BadRequest) as caught:
        read({**LEAST, **wrong}, ABOUT)
    assert caught.value.param == named and f"`{named}`" in str(caught.value)


@pytest.mark.parametrize("raw", [None, [], "text", 3])
def test_a_body_that_is_no_object(raw):
    with pytest.raises(BadRequest, match="JSON object"):
        read(raw, ABOUT)


@pytest.mark.parametrize("thread", [{"type": "continue", "previous_message_id": "msg_1"}, {"type": "other"}, {}, "x", 1])
@pytest.mark.parametrize("counting", [False, True])
def test_a_thread_is_never_continued_without_its_history(thread, counting):
    with pytest.raises(NoThread, match="whole conversation"):
        read({**LEAST, "thread": thread}, ABOUT, counting=counting)


def test_a_thread_that_begins_is_a_conversation_like_any_other():
    asked = read({**LEAST, "thread": {"type": "create"}}, ABOUT)
    assert asked.ignored == ("thread",) and "thread" not in asked.body
