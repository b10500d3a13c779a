"""Items of the input as the messages of a chat."""

import pytest
from asking import about, asked, function, messages, sent

from router.errors import BadRequest

USER = {"role": "user", "content": "hi"}
CALL = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": '{"a": 1}'}
CALLED = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AA"}


def message(text, role="assistant"):
    return {
        "type": "message",
        "role": role,
        "content": [{"type": "output_text" if role == "assistant" else "input_text", "text": text}],
    }


def reasoning(**given):
    return {"type": "reasoning", "id": "rs_1", "summary": [], **given}


def result(output, call_id="call_1"):
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def test_a_text_is_a_users_message():
    assert sent(input="hi")["messages"] == [USER]


def test_one_text_part_is_a_text_and_more_stay_parts():
    assert messages({"role": "user", "content": [{"type": "input_text", "text": "hi"}]}) == [USER]
    two = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    assert messages({"role": "user", "content": two})[0]["content"] == [
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b"},
    ]


def test_instructions_come_first_and_system_texts_at_the_head_are_one():
    head = {"role": "developer", "content": [{"type": "input_text", "text": "b"}, {"type": "input_text", "text": "c"}]}
    later = {"type": "message", "role": "system", "content": "d"}
    made = messages(head, USER, later, USER, instructions="a")
    assert made == [{"role": "system", "content": "a\n\nb\n\nc"}, USER, {"role": "system", "content": "d"}, USER]


def test_the_history_of_a_continued_response_stands_between_instructions_and_input():
    history = [{"role": "user", "content": "before"}, {"role": "assistant", "content": "yes"}]
    made = sent(about(history=history), instructions="be brief", input="more")["messages"]
    assert made == [{"role": "system", "content": "be brief"}, *history, {"role": "user", "content": "more"}]
    assert sent(about(history=history), input=None)["messages"] == history


def test_what_belongs_to_one_turn_is_one_message():
    second = {**CALL, "call_id": "call_2"}
    made = messages(USER, reasoning(summary=[{"type": "summary_text", "text": "hm"}]), message("I look"), CALL, second)
    assert made[1:] == [
        {"role": "assistant", "content": "I look", "tool_calls": [CALLED, {**CALLED, "id": "call_2"}], "reasoning": "hm"}
    ]


def test_a_turn_may_speak_after_a_call():
    assert messages(USER, message("a"), CALL, message("b"))[1:] == [
        {"role": "assistant", "content": "ab", "tool_calls": [CALLED]}
    ]


def test_two_answers_stay_two_messages():
    assert [m["content"] for m in messages(message("a"), message("b"))] == ["a", "b"]
    thought = reasoning(content=[{"type": "reasoning_text", "text": "hm"}])
    made = messages(message("a"), thought, message("b"))
    assert made == [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b", "reasoning": "hm"}]


def test_results_end_a_turn():
    made = messages(USER, CALL, result("42"), reasoning(content=[{"type": "reasoning_text", "text": "hm"}]), message("it is 42"))
    assert made[1:] == [
        {"role": "assistant", "content": None, "tool_calls": [CALLED]},
        {"role": "tool", "tool_call_id": "call_1", "content": "42"},
        {"role": "assistant", "content": "it is 42", "reasoning": "hm"},
    ]


def test_reasoning_alone_is_dropped():
    assert messages(USER, reasoning(content=[{"type": "reasoning_text", "text": "hm"}]), USER) == [USER, USER]


@pytest.mark.parametrize(
    "given, thought",
    [
        ({"content": [{"type": "reasoning_text", "text": "a"}, {"type": "reasoning_text", "text": "b"}]}, ("ab", None)),
        ({"content": [{"type": "reasoning_text", "text": "a"}], "encrypted_content": "sealed(large|b)"}, ("a", "large")),
        (
            {"summary": [{"type": "summary_text", "text": "short"}], "encrypted_content": "sealed(large|the whole)"},
            ("the whole", "large"),
        ),
        ({"summary": [{"text": "a"}, {"text": "b"}], "encrypted_content": "gAAAA of another server"}, ("a\n\nb", None)),
        ({"summary": None, "content": None, "encrypted_content": 5}, (None, None)),
        ({"summary": "x", "content": [1, {"text": 2}]}, (None, None)),
    ],
)
def test_reasoning_is_read_from_where_it_is_whole(given, thought):
    said = messages(reasoning(**given), message("a"))[0]
    assert (said.get("reasoning"), said.get("reasoning_tier")) == thought


def test_reasoning_of_several_tiers_is_of_none():
    parts = [reasoning(encrypted_content="sealed(large|a)"), reasoning(content=[{"type": "reasoning_text", "text": "b"}])]
    assert messages(*parts, message("c")) == [{"role": "assistant", "content": "c", "reasoning": "a\n\nb"}]


def test_images_in_results_follow_behind_all_results():
    made = messages(
        CALL, {**CALL, "call_id": "call_2"}, result([IMAGE]), result([{"type": "input_text", "text": "b"}], "call_2"), USER
    )
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    assert made[1:] == [
        {"role": "tool", "tool_call_id": "call_1", "content": "The result follows as an image."},
        {"role": "tool", "tool_call_id": "call_2", "content": "b"},
        {"role": "user", "content": [picture]},
        USER,
    ]


def test_images_and_files_and_sound_are_parts_of_a_chat():
    parts = [
        {**IMAGE, "detail": "low"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"},
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
        {"type": "some_text_of_tomorrow", "text": "x"},
    ]
    assert messages({"role": "user", "content": parts})[0]["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"}},
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
        {"type": "text", "text": "x"},
    ]


def test_a_refusal_is_what_the_assistant_said():
    given = {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}
    assert messages(given) == [{"role": "assistant", "content": "no"}]


def test_calls_of_other_kinds_are_calls_of_their_functions():
    items = [
        {"type": "custom_tool_call", "call_id": "c1", "name": "patch", "input": "é"},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "ok"},
        {"type": "function_call", "call_id": "c2", "name": "spawn", "namespace": "agents", "arguments": "{}"},
        {"type": "local_shell_call", "call_id": "c3", "action": {"type": "exec", "command": ["ls"], "env": {}, "user": None}},
        {"type": "local_shell_call_output", "id": "c3", "output": "a"},
        {"type": "shell_call", "call_id": "c4", "action": {"commands": ["ls"], "timeout_ms": None}},
        {"type": "shell_call_output", "call_id": "c4", "output": [{"stdout": "a", "stderr": "", "outcome": {"type": "timeout"}}]},
        {"type": "apply_patch_call", "call_id": "c5", "operation": {"type": "delete_file", "path": "a"}},
        {"type": "apply_patch_call_output", "call_id": "c5", "status": "failed", "output": "no such file"},
    ]
    tools = [{"type": "custom", "name": "patch"}, {"type": "namespace", "name": "agents", "tools": [function("spawn")]}]
    made = messages(*items, tools=tools)
    called = [(c["id"], *c["function"].values()) for m in made for c in m.get("tool_calls", [])]
    assert called == [
        ("c1", "patch", '{"input": "é"}'),
        ("c2", "agents__spawn", "{}"),
        ("c3", "local_shell", '{"command": ["ls"], "env": {}}'),
        ("c4", "shell", '{"commands": ["ls"]}'),
        ("c5", "apply_patch", '{"type": "delete_file", "path": "a"}'),
    ]
    assert [m["content"] for m in made if m["role"] == "tool"] == [
        "ok",
        "a",
        '[{"stdout": "a", "stderr": "", "outcome": {"type": "timeout"}}]',
        "failed\nno such file",
    ]


@pytest.mark.parametrize(
    "arguments, sent_on", [("", "{}"), (None, "{}"), ('{"a"', '{"invalid_json": "{\\"a\\""}'), ("[1]", '{"invalid_json": "[1]"}')]
)
def test_arguments_that_no_engine_takes_are_wrapped(arguments, sent_on):
    made = messages({**CALL, "arguments": arguments})
    assert made[0]["tool_calls"][0]["function"]["arguments"] == sent_on


def test_items_that_say_nothing_to_a_tier_are_named():
    items = [
        USER,
        {"type": "web_search_call", "id": "ws_1"},
        {"type": "web_search_call"},
        {"type": "new thing!"},
        {"type": "compaction"},
    ]
    edge = asked(input=items)
    assert edge.body["messages"] == [USER]
    assert edge.ignored == ("input.web_search_call", "input.unknown", "input.compaction")


def test_items_of_unknown_types_that_are_messages_are_read():
    assert messages({"type": "agent_message", "role": "user", "content": "hi"}) == [USER]


@pytest.mark.parametrize(
    "given, where",
    [
        (None, "input"),
        (7, "input"),
        ([], "input"),
        ([reasoning()], "input"),
        (["hi"], "input[0]"),
        ([{"type": 5}], "input[0].type"),
        ([{"type": "message", "content": "hi"}], "input[0].role"),
        ([{"role": "critic", "content": "hi"}], "input[0].role"),
        ([{"role": "user", "content": 5}], "input[0].content"),
        ([{"role": "user", "content": [5]}], "input[0].content[0]"),
        ([{"role": "user", "content": [{"type": "input_text"}]}], "input[0].content[0].text"),
        ([{"role": "user", "content": [{"type": "hologram"}]}], "input[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "input_image", "file_id": "f1"}]}], "input[0].content[0].file_id"),
        ([{"role": "user", "content": [{"type": "input_image"}]}], "input[0].content[0].image_url"),
        ([{"role": "user", "content": [{"type": "input_file", "file_url": "https://a"}]}], "input[0].content[0].file_url"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}], "input[0].content[0].input_audio"),
        ([{"role": "assistant", "content": [IMAGE]}], "input[0].content"),
        ([{"type": "function_call", "call_id": "c", "arguments": "{}"}], "input[0].name"),
        ([{"type": "function_call", "name": "f", "arguments": "{}"}], "input[0].call_id"),
        ([{**CALL, "arguments": {}}], "input[0].arguments"),
        ([{**CALL, "namespace": 5}], "input[0].namespace"),
        ([{"type": "custom_tool_call", "call_id": "c", "name": "p", "input": 5}], "input[0].input"),
        ([{"type": "shell_call", "call_id": "c", "action": "ls"}], "input[0].action"),
        ([{"type": "function_call_output", "output": "x"}], "input[0].call_id"),
        ([result({"a": 1})], "input[0].output"),
        ([{"type": "shell_call_output", "call_id": "c", "output": "x"}], "input[0].output"),
        ([{"type": "item_reference", "id": "msg_1"}], "input[0]"),
        ([{"id": "msg_1"}], "input[0]"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_place(given, where):
    with pytest.raises(BadRequest) as refused:
        asked(input=given)
    assert refused.value.param == where and f"`{where}`" in str(refused.value)
