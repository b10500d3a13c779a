"""`store` and `metadata` of a chat: checked as OpenAI checks them, answered by us, sent to no tier."""

import json

import pytest

from router.errors import BadRequest
from router.request.message_pieces import joined_calls, message_of
from router.request.wire import forwarded, parse

PAIRS = {f"name {i}": "value" for i in range(17)}


def read(path="chat/completions", **fields):
    asked = {"messages": [{"role": "user", "content": "hello"}]} if path == "chat/completions" else {"prompt": "hello"}
    return parse(path, json.dumps({"model": "auto", **asked, **fields}).encode())


@pytest.mark.parametrize("store", [None, True, False])
def test_they_are_taken_out_of_the_body(store):
    request = read(store=store, metadata={"app": "mail"}, seed=1)
    assert (request.store, request.metadata) == (store, {"app": "mail"})
    assert forwarded(request.body, "small").keys() == {"model", "messages", "seed"}


def test_a_body_without_them_says_nothing():
    request = read(metadata=None)
    assert request.store is None and request.metadata == {} and request.size > 0


@pytest.mark.parametrize(
    "fields, param",
    [
        ({"store": "yes"}, "store"),
        ({"store": 1}, "store"),
        ({"metadata": []}, "metadata"),
        ({"metadata": "mail"}, "metadata"),
        ({"metadata": PAIRS}, "metadata"),
        ({"metadata": {"n" * 65: "x"}}, "metadata"),
        ({"metadata": {"n": "x" * 513}}, "metadata"),
        ({"metadata": {"n": 1}}, "metadata"),
        ({"metadata": {"n": None}}, "metadata"),
    ],
)
def test_others_are_refused(fields, param):
    with pytest.raises(BadRequest) as refused:
        read(**fields)
    assert refused.value.param == param


def test_as_much_as_openai_takes_is_taken():
    most = {f"{i:64}": "x" * 512 for i in range(16)}
    assert read(metadata=most).metadata == most


def test_a_completions_fields_are_left_alone():
    request = read("completions", store=True, metadata=[1])
    assert request.store is None and request.body["store"] is True and request.body["metadata"] == [1]


# -- whole messages from pieces ----------------------------------------------------------------------------------------------


def chunks(*deltas, finish="stop"):
    return [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas] + [{"delta": {}, "finish_reason": finish}]


def test_a_document_keeps_what_it_says():
    said = {"role": "assistant", "content": None, "refusal": "no", "tool_calls": [], "audio": None}
    assert message_of([{"message": said, "finish_reason": "stop"}]) == (
        {"role": "assistant", "content": None, "refusal": "no"},
        "stop",
    )


def test_the_pieces_of_a_stream_become_the_same():
    first = {"role": "assistant", "content": "", "reasoning": "hm"}
    found = message_of(chunks(first, {"reasoning": "m", "content": "Pa"}, {"content": "ris"}))
    assert found == ({"role": "assistant", "content": "Paris", "reasoning": "hmm"}, "stop")


def test_calls_of_tools_are_joined_by_their_index():
    pieces = [
        {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}, {"index": 1, "id": "b", "function": {"name": "g"}}]},
    ]
    message, finish = message_of(chunks(*pieces, finish="tool_calls"))
    assert message["content"] is None and finish == "tool_calls"
    assert [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in message["tool_calls"]] == [
        ("a", "f", '{"x": 1}'),
        ("b", "g", ""),
    ]
    assert tuple(message["tool_calls"]) == joined_calls(pieces)


def test_the_old_form_of_a_call_is_joined_too():
    pieces = [{"function_call": {"name": "f", "arguments": "{"}}, {"function_call": {"arguments": "}"}}]
    assert message_of(chunks(*pieces))[0]["function_call"] == {"name": "f", "arguments": "{}"}


def test_nothing_said_is_an_empty_message():
    assert message_of([]) == ({"role": "assistant", "content": None}, "")
