"""OpenAI's JSON: what we read is checked, what we do not read stays as it is."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.errors import BadRequest, RequestFailed
from router.request.wire import facts, forwarded, needs, parse

CHAT, TEXT = "chat/completions", "completions"
USER = {"role": "user", "content": "hello"}


def read(path=CHAT, **fields):
    given_fields = {"messages": [USER]} if path == CHAT else {"prompt": "hello"}
    return parse(path, json.dumps({"model": "auto", **given_fields, **fields}).encode())


@pytest.mark.parametrize(
    "path, fields, param",
    [
        (CHAT, {"model": None}, "model"),
        (CHAT, {"model": ""}, "model"),
        (CHAT, {"model": ["auto"]}, "model"),
        (CHAT, {"stream": "yes"}, "stream"),
        (CHAT, {"stream": 1}, "stream"),
        (CHAT, {"tools": {}}, "tools"),
        (CHAT, {"response_format": "json"}, "response_format"),
        (CHAT, {"stream_options": []}, "stream_options"),
        (CHAT, {"max_tokens": -1}, "max_tokens"),
        (CHAT, {"max_tokens": 1.5}, "max_tokens"),
        (CHAT, {"max_tokens": True}, "max_tokens"),
        (CHAT, {"max_completion_tokens": "9"}, "max_completion_tokens"),
        (CHAT, {"n": "2"}, "n"),
        (CHAT, {"n": 0}, "n"),
        (CHAT, {"n": 10_000}, "n"),
        (CHAT, {"n": True}, "n"),
        (CHAT, {"n": 1e9}, "n"),
        (CHAT, {"best_of": "x"}, "best_of"),
        (TEXT, {"best_of": 2**63}, "best_of"),
        (TEXT, {"best_of": True}, "best_of"),
        (CHAT, {"max_tokens": 2**63}, "max_tokens"),
        (CHAT, {"max_completion_tokens": -1}, "max_completion_tokens"),
        (CHAT, {"top_logprobs": "2"}, "top_logprobs"),
        (CHAT, {"logprobs": 5}, "logprobs"),
        (CHAT, {"logprobs": "yes"}, "logprobs"),
        (TEXT, {"logprobs": True}, "logprobs"),
        (TEXT, {"logprobs": 2**63}, "logprobs"),
        (TEXT, {"prompt_logprobs": [1]}, "prompt_logprobs"),
        (TEXT, {"echo": 3}, "echo"),
        (CHAT, {"stream_options": 5}, "stream_options"),
        (CHAT, {"stream_options": {"include_usage": "no"}}, "stream_options"),
        (CHAT, {"chat_template_kwargs": [1]}, "chat_template_kwargs"),
        (CHAT, {"documents": "x"}, "documents"),
        (CHAT, {"temperature": "0.5"}, "temperature"),
        (CHAT, {"temperature": 10**400}, "temperature"),
        (CHAT, {"response_format": {"type": "json_schema", "json_schema": 3}}, "response_format"),
        (TEXT, {"messages": [USER]}, "messages"),
        (TEXT, {"messages": None}, "messages"),
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": "hello"}, "messages"),
        (CHAT, {"messages": [USER, 7]}, "messages[1]"),
        (CHAT, {"messages": [{"role": "judge", "content": "x"}]}, "messages[0].role"),
        (CHAT, {"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
        (CHAT, {"messages": [{"role": "user", "content": {"text": "x"}}]}, "messages[0].content"),
        (CHAT, {"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content"),
        (TEXT, {"prompt": None}, "prompt"),
        (TEXT, {"prompt": []}, "prompt"),
        (TEXT, {"prompt": {"a": 1}}, "prompt"),
        (TEXT, {"prompt": [1.5]}, "prompt"),
        (TEXT, {"prompt": [True]}, "prompt"),
        (TEXT, {"prompt": [[True]]}, "prompt"),
        (TEXT, {"prompt": [["x"]]}, "prompt"),
    ],
)
def test_a_bad_field_is_named(path, fields, param):
    with pytest.raises(BadRequest) as caught:
        read(path, **fields)
    assert caught.value.param == param
    assert f"`{param}`" in str(caught.value) or f"`{param}." in str(caught.value)


@pytest.mark.parametrize(
    "raw, says",
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xff", "not JSON"),
        (b'{"model": NaN}', "NaN is not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"temperature": 1e999}', "1e999 is too large"),
        (b'{"x": ' + b"9" * 5_000 + b"}", "not JSON"),
        (b'{"x": "\\ud83d"}', "half a character"),
        (b'{"x": "\xed\xa0\x80"}', "not JSON"),
        ('{"x": "é"}'.encode("utf-16"), "not JSON"),
        (b'{"x": ' + b"[" * 100 + b"]" * 100 + b"}", "nests more than 100"),
        (b"[]", "found list"),
        (b'"auto"', "found str"),
        (b"null", "found NoneType"),
    ],
)
def test_a_body_that_is_no_object_is_refused(raw, says):
    with pytest.raises(BadRequest, match=says):
        parse(CHAT, raw)


@pytest.mark.parametrize(
    "path, fields",
    [
        (CHAT, {"stream": None, "tools": None, "max_tokens": None}),
        (CHAT, {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}, USER]}),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "of tomorrow"}]}]}),
        (CHAT, {"messages": [{"role": "developer", "content": "x"}, {"role": "tool", "content": "x", "tool_call_id": "1"}]}),
        (TEXT, {"prompt": ["a", "b"]}),
        (TEXT, {"prompt": [1, 2, 3]}),
        (TEXT, {"prompt": [[1, 2], [3]]}),
    ],
)
def test_what_openai_permits_is_read(path, fields):
    facts(read(path, **fields))


@pytest.mark.parametrize(
    "more",
    [
        {"temperature": 0.0, "seed": 7, "n": 2, "stop": ["\n"]},
        {"logprobs": True, "top_logprobs": 3},
        {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "auto"},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}},
        {"guided_regex": "a+", "chat_template_kwargs": {"enable_thinking": False}},
        {"field_of_tomorrow": [{"a": None}]},
    ],
)
def test_what_we_do_not_read_is_passed_on_untouched(more):
    request = read(**more)
    assert forwarded(request.body, "large") == {**request.body, "model": "large"}


@pytest.mark.parametrize(
    "fields, options",
    [
        ({"stream": True}, {"include_usage": True}),
        ({"stream": True, "stream_options": None}, {"include_usage": True}),
        ({"stream": True, "stream_options": {"x": 1}}, {"include_usage": True, "x": 1}),
        ({"stream": True, "stream_options": {"include_usage": False}}, {"include_usage": False}),
        ({"stream": False}, None),
        ({}, None),
    ],
)
def test_a_stream_asks_the_tier_for_usage_unless_declined(fields, options):
    assert forwarded(read(**fields).body, "small").get("stream_options") == options


@pytest.mark.parametrize(
    "path, stray",
    [
        (CHAT, {"prompt": 5}),
        (CHAT, {"prompt": ["a"] * 100, "suffix": "x"}),
        (TEXT, {"tools": [{"type": "stepdown:delegate"}], "tool_choice": 4}),
        (TEXT, {"functions": 5, "documents": 6, "chat_template_kwargs": 7, "chat_template": 8}),
    ],
)
def test_fields_of_the_other_path_are_taken_out(path, stray):
    assert read(path, **stray) == read(path) and facts(read(path, **stray)) == facts(read(path))


def test_the_clients_body_is_not_changed():
    request = read(stream=True)
    forwarded(request.body, "small")
    assert request.body["model"] == "auto" and "stream_options" not in request.body


IMAGE = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]}


@pytest.mark.parametrize(
    "body, found",
    [
        ({}, set()),
        ({"tools": []}, set()),
        ({"tools": [{}]}, {"tools"}),
        ({"response_format": None}, set()),
        ({"response_format": {"type": "text"}}, set()),
        ({"response_format": {"type": "json_object"}}, {"json"}),
        ({"response_format": {"type": "json_schema"}}, {"json"}),
        ({"messages": [USER]}, set()),
        (IMAGE, {"images"}),
        ({**IMAGE, "tools": [{}], "response_format": {"type": "json_object"}}, {"images", "json", "tools"}),
    ],
)
def test_a_request_needs_what_it_holds(body, found):
    assert needs(body) == found


@pytest.mark.parametrize(
    "fields, tokens",
    [
        ({}, 1),
        ({"max_tokens": 0}, 1),
        ({"max_tokens": 64}, 64),
        ({"max_completion_tokens": 32}, 32),
        ({"max_completion_tokens": 32, "max_tokens": 64}, 32),
    ],
)
def test_the_answer_asked_for_takes_up_context(fields, tokens):
    assert facts(read(**fields)).answer_tokens == tokens


def test_all_messages_and_tools_take_up_context():
    system, tool = {"role": "system", "content": "be brief"}, {"function": {"name": "look_up"}}
    counted = facts(read(messages=[system, USER], tools=[tool])).counted
    assert [part for part in ("be brief", "hello", "look_up") if part not in counted] == []


FIELDS = ["model", "messages", "prompt", "stream", "stream_options", "tools", "response_format", "max_tokens", "n"]
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
MESSAGE = st.fixed_dictionaries(
    {
        "role": st.just("user") | ANY,
        "content": ANY
        | st.lists(
            st.dictionaries(st.sampled_from(["type", "text", "image_url"]), ANY | st.sampled_from(["text", "image_url"])),
            max_size=2,
        ),
    }
)


def refused_or_read(path, body):
    try:
        request = parse(path, json.dumps(body).encode())
        facts(request)
        forwarded(request.body, "small")
    except RequestFailed as error:
        assert 400 <= error.status < 500 and json.dumps(error.body())


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.dictionaries(st.sampled_from(FIELDS), ANY | st.lists(MESSAGE, max_size=2)))
def test_any_value_in_a_field_of_a_chat_is_read_or_refused(fields):
    refused_or_read(CHAT, {"model": "auto", "messages": [USER], **fields})


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.dictionaries(st.sampled_from([f for f in FIELDS if f != "messages"]), ANY))
def test_any_value_in_a_field_of_a_completion_is_read_or_refused(fields):
    refused_or_read(TEXT, {"model": "auto", "prompt": "hello", **fields})


@pytest.mark.parametrize("messages", [5, ["x"], [None], {"a": 1}])
def test_messages_beside_a_prompt_are_read_or_refused(messages):
    refused_or_read(TEXT, {"model": "auto", "prompt": "hello", "messages": messages})


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model": "auto", "prompt": "\\ud83d\\ude00 \\\\ud800"}',
        '\ufeff{"model": "auto", "prompt": "été 😀"}'.encode(),
        b'{"model": "auto", "prompt": "x", "deep": ' + b"[" * 99 + b"]" * 99 + b"}",
        b'{"model": "auto", "prompt": "' + b"[{" * 5_000 + b'"}',
        b'{"model": "auto", "prompt": "x", "seed": 9223372036854775808, "x": 1e-999}',
    ],
)
def test_what_is_whole_is_read(raw):
    assert json.loads(json.dumps(parse(TEXT, raw).body)) == json.loads(raw.decode("utf-8-sig"))


def test_of_a_key_that_stands_twice_the_last_value_counts_for_us_and_for_the_tier():
    request = parse(TEXT, b'{"model": "small", "prompt": "a", "model": "large", "prompt": "b"}')
    assert (facts(request).wanted, facts(request).text) == ("large", "b")
    assert forwarded(request.body, "large") == {"model": "large", "prompt": "b"}


def test_a_prompt_of_deep_lists_is_read_or_refused():
    deep = b'{"model": "auto", "prompt": ' + b"[" * 700 + b"]" * 700 + b"}"
    try:
        facts(parse(TEXT, deep))
    except RequestFailed as error:
        assert error.status == 400


@pytest.mark.parametrize("prompts, n, good", [(256, 1, True), (257, 1, False), (2, 128, True), (3, 128, False)])
def test_one_request_may_ask_for_so_many_answers_as_an_engine_makes_side_by_side(prompts, n, good):
    raw = json.dumps({"model": "small", "prompt": ["a"] * prompts, "n": n}).encode()
    if good:
        assert parse("completions", raw).body["n"] == n
        return
    with pytest.raises(BadRequest, match="at most 256"):
        parse("completions", raw)
