"""What the words of a user's message make a steered tier do."""

import json

import pytest

from tests.clients.script import SURE, UNSURE, said

WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}]
CALLED = {"role": "assistant", "content": None, "tool_calls": [{"id": "call_0", "function": {"name": "x", "arguments": "{}"}}]}


def turn(*messages, tier="small", **more):
    given = [{"role": "user", "content": m} if isinstance(m, str) else m for m in messages]
    return said({"messages": given, "tools": TOOLS, **more}, tier)


def result(text):
    return {"role": "tool", "tool_call_id": "call_0", "content": text}


def test_a_message_without_words_is_repeated():
    assert turn("hello").text == "You said: hello"


def test_the_steps_of_a_task_come_one_a_turn_and_end_in_what_the_last_tool_said():
    task = 'TOOL read {"path": "a b"}\nTOOL run {"cmd": "ls \\"x\\""}'
    first, second = turn(task), turn(task, CALLED, result("one"))
    assert [(c.name, json.loads(c.arguments)) for c in first.calls] == [("read", {"path": "a b"})]
    assert [(c.name, json.loads(c.arguments)) for c in second.calls] == [("run", {"cmd": 'ls "x"'})]
    assert turn(task, CALLED, result("one"), CALLED, result("two")).text == "The tool said: two"


def test_a_quoted_prompt_is_read():
    assert json.loads(turn('"TOOL run {\\"cmd\\": \\"ls\\"}"').calls[0].arguments) == {"cmd": "ls"}


def test_words_of_a_task_that_ended_do_not_count():
    task = 'TOOL run {"cmd": "ls"}'
    assert turn(task, CALLED, result("x"), {"role": "assistant", "content": "done"}, "thanks").text == "You said: thanks"


def test_what_a_client_adds_after_a_result_does_not_end_the_task():
    task = 'TOOL run {"cmd": "a"}\nTOOL run {"cmd": "b"}'
    assert json.loads(turn(task, CALLED, result("x"), "a reminder").calls[0].arguments) == {"cmd": "b"}


def test_without_tools_nothing_is_called():
    assert said({"messages": [{"role": "user", "content": "TOOLS 2"}]}, "small").calls == ()


def test_parallel_and_broken_calls():
    assert [json.loads(c.arguments) for c in turn("TOOLS 2").calls] == [{"city": "text 0"}, {"city": "text 1"}]
    with pytest.raises(ValueError):
        json.loads(turn("BADARGS").calls[0].arguments)


def test_the_other_words():
    assert turn("THINK 2 hello").reasoning == "thought0 thought1" and turn("LONG 3").text == "word0 word1 word2"
    assert turn("LENGTH").finish == "length" and turn("FAIL 503").fails == 503 and turn("SLOW 0.5").wait_s == 0.5
    assert turn("CUT 2 x").cut == 2 and turn('SAY "a\\nb"').text == "a\nb"
    assert (turn("WEAK").logprob, turn("WEAK", tier="large").logprob) == (UNSURE, SURE)


def test_a_tool_that_is_demanded_is_called():
    named = {"type": "function", "function": {"name": "get_weather"}}
    assert [json.loads(turn("hello", tool_choice=how).calls[0].arguments) for how in (named, "required")] == [
        {"city": "text"}
    ] * 2
    assert turn("hello", tool_choice="auto").calls == ()


def test_an_object_that_is_asked_for_fits_its_schema():
    schema = {"type": "object", "properties": {"n": {"type": "integer"}, "more": {"type": "string"}}, "required": ["n"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert json.loads(turn('TOOL run {"cmd": "a"}', response_format=wanted).text) == {"n": 3}
