"""A request of Responses as a chat body, and what is said of it."""

import json

import pytest
from asking import ID, about, asked, chat, function, sent
from hypothesis import given
from hypothesis import strategies as st

from router.errors import BadRequest, RequestFailed, Unsupported
from router.protocols.responses import previous, read
from router.request import wire

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


def test_fields_have_other_names_in_a_chat():
    body = sent(
        max_output_tokens=64,
        reasoning={"effort": "none", "summary": "auto"},
        text={"format": {"type": "json_schema", "name": "P", "schema": SCHEMA, "strict": True}, "verbosity": "low"},
        include=["message.output_text.logprobs"],
        top_logprobs=3,
        temperature=0.5,
        top_p=None,
        stream=True,
        store=False,
        metadata={"a": "b"},
    )
    assert body == {
        "model": "auto",
        "messages": [{"role": "user", "content": "hi"}],
        "max_completion_tokens": 64,
        "reasoning_effort": "none",
        "response_format": {"type": "json_schema", "json_schema": {"name": "P", "schema": SCHEMA, "strict": True}},
        "logprobs": True,
        "top_logprobs": 3,
        "temperature": 0.5,
        "stream": True,
        "stream_options": {"include_usage": True},
        "store": False,
        "metadata": {"a": "b"},
    }


@pytest.mark.parametrize(
    "form, made", [(None, None), ({"type": "text"}, None), ({"type": "json_object"}, {"type": "json_object"})]
)
def test_forms_without_a_schema(form, made):
    assert sent(text={"format": form}).get("response_format") == made


def test_vllms_extras_and_our_limits_pass():
    extras = {"top_k": 5, "chat_template_kwargs": {"enable_thinking": False}, "stop": ["x"], "stepdown": {"max_cost_usd": 1}}
    assert {name: sent(**extras)[name] for name in extras} == extras


def test_what_does_nothing_is_named():
    edge = asked(
        store=True,
        truncation="disabled",
        service_tier="auto",
        safety_identifier=None,
        user="me",
        n=3,
        text={"verbosity": "low"},
        top_logprobs=2,
        include=["reasoning.encrypted_content", "web_search_call.action.sources"],
        **{"x" * 65: 1, "a b": 2},
    )
    assert edge.ignored == (
        "store",
        "text.verbosity",
        "top_logprobs",
        "truncation",
        "service_tier",
        "user",
        "n",
        "unknown",
        "include.web_search_call.action.sources",
    )
    assert set(edge.body) == {"model", "messages", "store"}


def test_storing_is_not_ignored_where_it_is_on():
    edge = asked(about(stores=True), store=True)
    assert edge.ignored == () and edge.document(chat(content="a"))["store"] is True
    assert asked(about(stores=True)).document(chat(content="a"))["store"] is True
    assert asked(about(stores=True), store=False).document(chat(content="a"))["store"] is False
    assert asked(store=True).document(chat(content="a"))["store"] is False


@pytest.mark.parametrize(
    "body, session",
    [
        ({}, ""),
        ({"prompt_cache_key": "k", "metadata": {"user_id": "u"}}, "k"),
        ({"metadata": {"user_id": "u"}}, "u"),
        ({"prompt_cache_key": 5}, ""),
    ],
)
def test_the_body_may_name_the_session(body, session):
    assert asked(**body).session == session


def test_a_continued_response_is_named():
    assert previous({"previous_response_id": "resp_1"}) == "resp_1"
    assert [previous(body) for body in ({}, {"previous_response_id": None}, {"previous_response_id": ""}, [], None)] == [None] * 5
    with pytest.raises(BadRequest, match="previous_response_id"):
        previous({"previous_response_id": 5})


@pytest.mark.parametrize("field, value", [("background", True), ("conversation", "conv_1"), ("prompt", {"id": "pmpt_1"})])
def test_features_that_are_not_here_are_refused(field, value):
    with pytest.raises(Unsupported) as refused:
        asked(**{field: value})
    assert (refused.value.code, refused.value.param) == ("unsupported", field)
    assert asked(**{field: False if field == "background" else None})


@pytest.mark.parametrize(
    "body, where",
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 5}, "model"),
        ({"instructions": ["a"]}, "instructions"),
        ({"background": "yes"}, "background"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": True}, "max_output_tokens"),
        ({"max_output_tokens": "64"}, "max_output_tokens"),
        ({"reasoning": "high"}, "reasoning"),
        ({"reasoning": {"effort": 5}}, "reasoning.effort"),
        ({"text": "plain"}, "text"),
        ({"text": {"format": "json"}}, "text.format"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "schema": {}, "name": 5}}}, "text.format.name"),
        ({"include": "all"}, "include"),
        ({"include": [5]}, "include[0]"),
        ({"stream": "yes"}, "stream"),
        ({"store": "yes"}, "store"),
        ({"metadata": "a"}, "metadata"),
        ({"previous_response_id": 5}, "previous_response_id"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_place(body, where):
    with pytest.raises(BadRequest) as refused:
        asked(**body)
    assert refused.value.param == where and f"`{where}`" in str(refused.value)


@pytest.mark.parametrize("body", [None, [], "hi", 5])
def test_a_body_is_an_object(body):
    with pytest.raises(BadRequest):
        read(body, about())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KINDS = (
    "message reasoning function_call function_call_output custom_tool_call custom_tool_call_output local_shell_call shell_call "
    "shell_call_output apply_patch_call apply_patch_call_output item_reference function custom namespace shell web_search "
    "input_text input_image input_file input_audio refusal allowed_tools json_schema"
).split()
NAMES = (
    "role content name call_id id arguments input output action operation summary encrypted_content namespace tools parameters "
    "strict format definition text image_url file_data status mode schema effort"
).split()
OBJECTS = st.dictionaries(st.sampled_from(NAMES), JSON | st.sampled_from(["user", "assistant", "c1"]), max_size=4)
TYPED = st.builds(lambda kind, rest: {**rest, "type": kind}, st.sampled_from(KINDS), OBJECTS)
VALUES = st.one_of(
    JSON, TYPED, st.lists(TYPED, max_size=3), st.lists(TYPED, max_size=2).map(lambda parts: [{"role": "user", "content": parts}])
)
FIELDS = (
    "model input instructions tools tool_choice parallel_tool_calls text reasoning include max_output_tokens top_logprobs stream "
    "store metadata previous_response_id background prompt_cache_key temperature stop stepdown something_new"
).split()


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4), st.booleans())
def test_any_body_is_read_or_refused(body, valid):
    body = {"model": "auto", "input": "hi", **body} if valid else body
    try:
        edge = read(body, about())
        wire.parse("chat/completions", json.dumps(edge.body).encode())
    except RequestFailed as refused:
        assert refused.status == 400 and isinstance(refused, BadRequest)
        return
    json.dumps(edge.document(chat(content="a")), allow_nan=False)
    assert all(name.isascii() and len(name) <= 72 for name in edge.ignored) and isinstance(edge.session, str)


@pytest.mark.parametrize("half", ["\ud83d", "a\udc00"])
def test_half_characters_break_nothing(half):
    tools = [{"type": "namespace", "name": "n" * 60 + half, "tools": [function(half)]}]
    edge = asked(input=half, tools=tools, instructions=half)
    assert b"".join(edge.encoder().waiting()).decode()


def test_the_response_repeats_what_was_asked():
    given = {
        "instructions": "be brief",
        "tools": [function("f"), {"type": "web_search"}],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "text": {"format": {"type": "json_object"}, "verbosity": "low"},
        "reasoning": {"effort": "low", "summary": "auto"},
        "metadata": {"a": "b"},
        "max_output_tokens": 9,
        "temperature": 0.5,
        "previous_response_id": "resp_0",
    }
    made = asked(about(stores=True), **given).document(chat(content="a", usage={"prompt_tokens": 1, "completion_tokens": 2}))
    assert {name: made[name] for name in given} == given
    assert (made["id"], made["object"], made["created_at"], made["model"]) == (f"resp_{ID}", "response", 1_796_000_000, "auto")
    assert (made["status"], made["error"], made["incomplete_details"]) == ("completed", None, None)
    assert made["usage"]["total_tokens"] == 3


def test_defaults_are_told():
    made = asked().document(chat(content="a"))
    expected = {
        "instructions": None,
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "text": {"format": {"type": "text"}},
        "reasoning": {"effort": None, "summary": None},
        "metadata": {},
        "usage": None,
    }
    assert {name: made[name] for name in expected} == expected


def test_a_whole_answer():
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "not JSON"}}
    edge = asked(tools=[function("f")])
    made = edge.document(chat("tool_calls", content="\n\n", reasoning="hm", tool_calls=[call]))
    assert made["output"] == [
        {"id": f"rs_{ID}0001", "type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {
            "id": f"fc_{ID}0002",
            "type": "function_call",
            "call_id": "call_1",
            "name": "f",
            "arguments": "not JSON",
            "status": "completed",
        },
    ]


def test_logprobs_of_reasoning_are_not_the_answers():
    entries = [{"token": token, "logprob": -1.0, "bytes": None, "top_logprobs": []} for token in "rra"]
    answer = chat(content="a", reasoning="rr", usage={"completion_tokens_details": {"reasoning_tokens": 2}})
    answer["choices"][0]["logprobs"] = {"content": entries}
    made = asked(include=["message.output_text.logprobs"]).document(answer)
    assert made["output"][1]["content"][0]["logprobs"] == entries[2:]
    assert asked().document(answer)["output"][1]["content"][0]["logprobs"] == []
