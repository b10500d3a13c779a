"""Whole answers: a chat completion as Anthropic's message."""

import pytest
from messages_client import ABOUT, FakeSeals, answered

from router.protocols.messages import read

ASKED = {"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}


def asked(**more):
    return read({**ASKED, **more}, ABOUT)


def call(arguments, id_="call_sd_1", name="f"):
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_a_whole_message():
    made = asked().document(
        answered({"role": "assistant", "content": "Hi", "reasoning": "hm", "tool_calls": [call('{"a": 1}')]}, "tool_calls")
    )
    assert made == {
        "id": f"msg_{ABOUT.id}",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": FakeSeals().signature("hm", "small")},
            {"type": "text", "text": "Hi"},
            {"type": "tool_use", "id": "call_sd_1", "name": "f", "input": {"a": 1}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 12, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 5},
    }


@pytest.mark.parametrize("message", [{}, {"content": None}, {"content": ""}, {"content": "\n", "tool_calls": None}])
def test_an_empty_answer_is_one_empty_text(message):
    assert asked().document(answered(message))["content"] == [{"type": "text", "text": ""}]


@pytest.mark.parametrize("arguments", ["[1]", "no object", '{"cut": ', "1", "[" * 100_000])
def test_arguments_that_are_no_object_are_told(arguments):
    edge = asked()
    made = edge.document(answered({"content": None, "tool_calls": [call("{}"), call(arguments, name="wéather")]}, "tool_calls"))
    assert [block["input"] for block in made["content"]] == [{}, {}]
    (warning,) = edge.warnings
    assert "w\\xe9ather" in warning and warning.isascii()


def test_no_arguments_are_no_reason_to_warn():
    edge = asked()
    assert (
        edge.document(answered({"content": None, "tool_calls": [call("")]}))["content"][0]["input"] == {} and edge.warnings == ()
    )


@pytest.mark.parametrize(
    "finish, more, expected",
    [
        ("stop", {}, ("end_turn", None)),
        ("stop", {"stop_reason": "END"}, ("stop_sequence", "END")),
        ("stop", {"stop_reason": 2}, ("end_turn", None)),
        ("length", {}, ("max_tokens", None)),
        ("content_filter", {}, ("refusal", None)),
    ],
)
def test_why_it_stopped(finish, more, expected):
    made = asked().document(answered({"content": "a"}, finish, **more))
    assert (made["stop_reason"], made["stop_sequence"]) == expected


def test_a_refusal_is_text():
    made = asked().document(answered({"content": None, "refusal": "no"}))
    assert made["content"] == [{"type": "text", "text": "no"}] and made["stop_reason"] == "refusal"


@pytest.mark.parametrize(
    "usage, expected", [({}, (0, 0, 0)), ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 12}}, (0, 9, 0))]
)
def test_usage_is_whole_and_never_negative(usage, expected):
    told = asked().document(answered({"content": "a"}, usage=usage))["usage"]
    assert (told["input_tokens"], told["cache_read_input_tokens"], told["output_tokens"]) == expected


def test_our_own_usage_is_passed_on():
    assert asked().document(answered({"content": "a"}, usage={"stepdown": {"calls": 2}}))["usage"]["stepdown"] == {"calls": 2}


def test_what_was_said_is_what_comes_back():
    answer = answered({"content": "Hi", "reasoning": "hm", "tool_calls": [call('{"a": 1}')]}, "tool_calls")
    edge = asked()
    history = [
        *ASKED["messages"],
        {"role": "assistant", "content": edge.document(answer)["content"]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_sd_1", "content": "42"}]},
    ]
    back = read({**ASKED, "messages": history}, ABOUT).body["messages"]
    assert (
        back[1]
        == edge.said(answer)
        == {"role": "assistant", "content": "Hi", "reasoning": "hm", "reasoning_tier": "small", "tool_calls": [call('{"a": 1}')]}
    )
    assert back[2] == {"role": "tool", "tool_call_id": "call_sd_1", "content": "42"}
