"""A stream's events, one case each: when it begins, what waits for what, what each kind of item says, how it ends."""

import json

import pytest
from asking import ID, about, asked, chunk, function, piece
from grammar import Machine, events

from router.errors import (
    BudgetSpent,
    ContextTooLong,
    DeadlineExceeded,
    LedgerDown,
    NoReplica,
    Overloaded,
    RateLimited,
    TierBusy,
    TierCold,
    TierFailed,
    WindowExceeded,
)

TOOLS = [function("f"), function("g"), {"type": "custom", "name": "patch"}, {"type": "shell"}, {"type": "apply_patch"}]


def streamed(*chunks, edge=None):
    """All events, checked, without those that open the stream."""
    encoder = (edge or asked(tools=TOOLS)).encoder()
    raw = [event for given in chunks for event in encoder.fed(given)] + encoder.ended()
    Machine().read(raw)
    return list(events(raw))[2:]


def names(told):
    return [name.removeprefix("response.") for name, _ in told]


def items(told):
    return [data["item"] for name, data in told if name == "response.output_item.done"]


def end(told):
    return told[-1][1]["response"]


def test_the_first_chunk_opens_the_stream_whatever_it_says():
    encoder = asked().encoder()
    assert [name for name, _ in events(encoder.fed(chunk({"role": "assistant", "content": ""})))] == [
        "response.created",
        "response.in_progress",
    ]


def test_waiting_opens_the_stream_and_then_keeps_it_alive():
    encoder = asked().encoder()
    first, second = encoder.waiting(), encoder.waiting()
    assert [name for name, _ in events(first)] == ["response.created", "response.in_progress"]
    assert second == [b'event: keepalive\ndata: {"type":"keepalive","sequence_number":2}\n\n']


def test_each_event_is_whole():
    encoder = asked().encoder()
    assert all(event.endswith(b"\n\n") and event.count(b"\n\n") == 1 for event in encoder.fed(chunk({"content": "a\n\nb"})))


def test_the_chunk_that_opens_the_stream_may_say_something():
    told = streamed(chunk({"role": "assistant", "reasoning": "hm", "content": "hello"}), chunk({}, "stop"))
    assert names(told)[:4] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
    ]
    assert [item["type"] for item in items(told)] == ["reasoning", "message"]


def test_a_message_ends_with_the_tiers_last_word_not_with_the_ledger():
    encoder = asked().encoder()
    encoder.fed(chunk({"content": "hello"}))
    assert "response.output_item.done" in [name for name, _ in events(encoder.fed(chunk({}, "stop")))]
    assert [name for name, _ in events(encoder.ended())] == ["response.completed"]


def test_interleaved_calls_come_one_after_the_other():
    told = streamed(
        chunk(piece(0, '{"a":', "f", "call_1")),
        chunk(piece(1, '{"b":', "g", "call_2")),
        chunk(piece(0, "1}")),
        chunk(piece(1, "2}")),
        chunk({}, "tool_calls"),
    )
    assert [(i["call_id"], i["name"], i["arguments"]) for i in items(told)] == [
        ("call_1", "f", '{"a":1}'),
        ("call_2", "g", '{"b":2}'),
    ]
    assert end(told)["status"] == "completed"


def test_a_call_waits_only_for_arguments_that_are_not_complete():
    encoder = asked(tools=TOOLS).encoder()
    encoder.fed(chunk(piece(0, "{}", "f", "call_1")))
    told = list(events(encoder.fed(chunk(piece(1, '{"b":', "g", "call_2")))))
    assert names(told) == [
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
    ]


def test_a_call_that_waits_begins_when_the_one_before_it_is_complete():
    encoder = asked(tools=TOOLS).encoder()
    encoder.fed(chunk(piece(0, "{", "f", "call_1")))
    assert encoder.fed(chunk(piece(1, '{"b":', "g", "call_2"))) == []
    assert names(list(events(encoder.fed(chunk(piece(0, "}"))))))[-2:] == ["output_item.added", "function_call_arguments.delta"]


def test_text_behind_a_call_is_another_message_and_waits_until_the_call_is_complete():
    told = streamed(
        chunk({"content": "I look. "}),
        chunk(piece(0, '{"a":', "f", "call_1")),
        chunk({"content": "Then "}),
        chunk(piece(0, "1}")),
        chunk({"content": "more"}, "stop"),
    )
    assert [i.get("arguments") or i["content"][0]["text"] for i in items(told)] == ["I look. ", '{"a":1}', "Then more"]


def test_what_comes_for_a_call_that_was_complete_is_dropped():
    told = streamed(chunk(piece(0, "{}", "f", "call_1")), chunk({"content": "done"}), chunk(piece(0, "}")), chunk({}, "stop"))
    assert [i["arguments"] for i in items(told) if i["type"] == "function_call"] == ["{}"]


def test_white_space_around_reasoning_and_calls_is_no_message():
    told = streamed(
        chunk({"content": "\n"}),
        chunk({"reasoning": "hm"}),
        chunk({"content": "\n\n"}),
        chunk(piece(0, "{}", "f", "call_1")),
        chunk({"content": "\n"}, "tool_calls"),
    )
    assert [i["type"] for i in items(told)] == ["reasoning", "function_call"]


def test_white_space_before_a_text_is_part_of_it():
    assert (
        items(streamed(chunk({"content": "\n\n"}), chunk({"content": "hello"}, "stop")))[0]["content"][0]["text"] == "\n\nhello"
    )


@pytest.mark.parametrize("deltas, text", [([], ""), ([{"content": "\n"}], "\n"), ([{"reasoning": "hm"}], "")])
def test_an_answer_of_nothing_is_an_empty_message(deltas, text):
    last = items(streamed(*map(chunk, deltas), chunk({}, "stop")))[-1]
    assert (last["type"], last["content"][0]["text"], last["status"]) == ("message", text, "completed")


def test_an_answer_that_was_cut_off_says_so():
    told = streamed(chunk({"content": "hel"}), chunk({}, "length"))
    assert items(told)[0]["status"] == "incomplete"
    assert (told[-1][0], end(told)["incomplete_details"]) == ("response.incomplete", {"reason": "max_output_tokens"})


def test_calls_that_were_cut_off_say_so_and_others_do_not():
    pieces = (
        piece(0, "{}", "f", "call_1"),
        piece(1, '{"a":', "f", "call_2"),
        piece(2, "{}", "f", "call_3"),
        piece(3, "{", "f", "c4"),
    )
    told = streamed(*map(chunk, pieces), chunk({}, "length"))
    assert [item["status"] for item in items(told)] == ["completed", "incomplete", "completed", "incomplete"]


def test_reasoning_that_was_cut_off_has_no_message():
    told = streamed(chunk({"reasoning": "hm"}), chunk({}, "length"))
    assert [i["type"] for i in end(told)["output"]] == ["reasoning"]


def test_an_answer_that_was_filtered_says_so():
    told = streamed(chunk({"content": "hel"}), chunk({}, "content_filter"))
    assert end(told)["incomplete_details"] == {"reason": "content_filter"}


def test_a_refusal_is_a_part_of_its_own():
    told = streamed(chunk({"refusal": "I will "}), chunk({"refusal": "not"}, "stop"))
    assert items(told)[0]["content"] == [{"type": "refusal", "refusal": "I will not"}]
    assert names(told).count("refusal.delta") == 2


def test_reasoning_may_come_as_text():
    told = streamed(chunk({"reasoning": "hm"}), chunk({"content": "a"}, "stop"), edge=asked(about(reasoning="text")))
    assert names(told)[1:5] == ["content_part.added", "reasoning_text.delta", "reasoning_text.done", "content_part.done"]
    assert items(told)[0] == {
        "id": f"rs_{ID}0001",
        "type": "reasoning",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "hm"}],
    }


def test_hidden_reasoning_is_no_item():
    told = streamed(chunk({"reasoning": "secret"}), chunk({"content": "a"}, "stop"), edge=asked(about(reasoning="hidden")))
    assert [i["type"] for i in items(told)] == ["message"] and "secret" not in json.dumps(told)


def test_hidden_reasoning_comes_encrypted_where_that_is_asked_for():
    edge = asked(about(reasoning="hidden"), include=["reasoning.encrypted_content"])
    told = streamed(chunk({"reasoning": "sec"}), chunk({"reasoning": "ret"}), chunk({"content": "a"}, "stop"), edge=edge)
    assert items(told)[0] == {
        "id": f"rs_{ID}0001",
        "type": "reasoning",
        "summary": [],
        "encrypted_content": "sealed(large|secret)",
    }
    assert names(told)[:2] == ["output_item.added", "output_item.done"]


def test_encrypted_reasoning_names_the_tier_that_thought():
    told = streamed(
        chunk({"reasoning": "hm"}), chunk({"content": "a"}, "stop"), edge=asked(include=["reasoning.encrypted_content"])
    )
    assert items(told)[0]["summary"] == [{"type": "summary_text", "text": "hm"}]
    assert items(told)[0]["encrypted_content"] == "sealed(large|hm)"


def test_a_custom_tools_input_streams_without_its_wrapping():
    told = streamed(
        chunk(piece(0, '{"inp', "patch", "call_1")),
        chunk(piece(0, 'ut": "*** Begin\\')),
        chunk(piece(0, "n\\ud83d")),
        chunk(piece(0, "\\ude00\\u00")),
        chunk(piece(0, 'e9"}')),
        chunk({}, "tool_calls"),
    )
    deltas = [data["delta"] for name, data in told if name == "response.custom_tool_call_input.delta"]
    assert deltas == ["*** Begin", "\n", "\U0001f600", "é"]
    assert items(told)[0] == {
        "id": f"ctc_{ID}0001",
        "type": "custom_tool_call",
        "call_id": "call_1",
        "name": "patch",
        "input": "*** Begin\n\U0001f600é",
        "status": "completed",
    }


def test_a_custom_tools_input_may_come_without_any_wrapping():
    told = streamed(chunk(piece(0, "*** Begin", "patch", "call_1")), chunk(piece(0, " Patch")), chunk({}, "tool_calls"))
    assert items(told)[0]["input"] == "*** Begin Patch"


def test_a_tool_in_a_namespace_comes_back_with_it():
    edge = asked(tools=[{"type": "namespace", "name": "agents", "tools": [function("spawn")]}])
    assert [tool["function"]["name"] for tool in edge.body["tools"]] == ["agents__spawn"]
    told = streamed(chunk(piece(0, "{}", "agents__spawn", "call_1"), "tool_calls"), edge=edge)
    assert (items(told)[0]["name"], items(told)[0]["namespace"]) == ("spawn", "agents")


@pytest.mark.parametrize(
    "name, arguments, item",
    [
        (
            "shell",
            {"commands": ["ls"], "timeout_ms": 5},
            {"type": "shell_call", "action": {"commands": ["ls"], "timeout_ms": 5, "max_output_length": None}},
        ),
        (
            "local_shell",
            {"command": ["ls", "-l"]},
            {"type": "local_shell_call", "action": {"type": "exec", "command": ["ls", "-l"], "env": {}}},
        ),
        (
            "apply_patch",
            {"type": "create_file", "path": "a", "diff": "+b"},
            {"type": "apply_patch_call", "operation": {"type": "create_file", "path": "a", "diff": "+b"}},
        ),
    ],
)
def test_calls_of_openais_own_tools_are_their_own_items(name, arguments, item):
    edge = asked(tools=[{"type": name}])
    told = streamed(chunk(piece(0, json.dumps(arguments), name, "call_1"), "tool_calls"), edge=edge)
    assert {k: v for k, v in items(told)[0].items() if k not in ("id", "call_id", "status")} == item


@pytest.mark.parametrize("arguments", ['{"commands": "ls"}', "rm -rf", '{"commands": [1]}', "[]", ""])
def test_a_call_that_nobody_can_run_goes_out_as_it_is(arguments):
    told = streamed(chunk(piece(0, arguments, "shell", "call_1"), "tool_calls"), edge=asked(tools=[{"type": "shell"}]))
    assert [(i["type"], i["name"], i["arguments"]) for i in items(told)] == [("function_call", "shell", arguments)]


def test_a_name_and_an_id_may_come_late_or_never():
    told = streamed(
        chunk({"tool_calls": [{"index": 0}]}),
        chunk(piece(0, "", "get_")),
        chunk(piece(0, "", "weather", "call_9")),
        chunk(piece(0, "{}")),
        chunk(piece(1, "{}", "f")),
        chunk({}, "tool_calls"),
    )
    assert [(i["name"], i["call_id"]) for i in items(told)] == [("get_weather", "call_9"), ("f", f"call_{ID}_1")]


def test_logprobs_come_if_they_are_asked_for():
    entry = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
    chunks = chunk({"reasoning": "hm"}, logprobs=[entry]), chunk({"content": "a"}, logprobs=[entry]), chunk({}, "stop")
    told = streamed(*chunks, edge=asked(include=["message.output_text.logprobs"]))
    assert [data["logprobs"] for name, data in told if "output_text" in name] == [[entry], [entry]]
    assert items(told)[1]["content"][0]["logprobs"] == [entry]
    assert items(streamed(*chunks))[1]["content"][0]["logprobs"] == []


def test_the_end_tells_the_usage():
    usage = {
        "prompt_tokens": 40,
        "completion_tokens": 9,
        "total_tokens": 49,
        "prompt_tokens_details": {"cached_tokens": 32},
        "completion_tokens_details": {"reasoning_tokens": 5},
        "stepdown": {"cost_usd": 0.1},
    }
    told = streamed(chunk({"content": "a"}, "stop"), chunk(usage=usage))
    assert end(told)["usage"] == {
        "input_tokens": 40,
        "input_tokens_details": {"cached_tokens": 32, "cache_write_tokens": 0},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 49,
        "stepdown": {"cost_usd": 0.1},
    }


def test_usage_may_come_with_the_last_word():
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    assert end(streamed(chunk({"content": "a"}, "stop", usage=usage), chunk({})))["usage"]["total_tokens"] == 3


@pytest.mark.parametrize("how", ["ended", "failed"])
def test_nothing_follows_the_end(how):
    encoder, broke = asked().encoder(), TierFailed("small", "broke")
    assert encoder.ended() if how == "ended" else encoder.failed(broke)
    assert encoder.failed(broke) + encoder.waiting() + encoder.ended() + encoder.fed(chunk({"content": "late"})) == []


@pytest.mark.parametrize(
    "failed, code",
    [
        (Overloaded(4.0), "server_is_overloaded"),
        (NoReplica("small", "none runs"), "server_is_overloaded"),
        (TierBusy("small", "full"), "server_is_overloaded"),
        (TierCold("small"), "server_is_overloaded"),
        (LedgerDown("disk full"), "server_is_overloaded"),
        (ContextTooLong(9, 5), "context_length_exceeded"),
        (WindowExceeded("small"), "context_length_exceeded"),
        (BudgetSpent(5.0, "day", 0.1, 0.2, 7200.0), "insufficient_quota"),
        (RateLimited(60, "requests", 7.2), "rate_limit_exceeded"),
        (TierFailed("small", "broke"), "server_error"),
        (DeadlineExceeded(60), "server_error"),
    ],
)
def test_a_stream_that_breaks_says_how(failed, code):
    told = list(events(asked().encoder().failed(failed)))
    assert names(told) == ["created", "in_progress", "failed"]
    assert end(told)["error"] == {"code": code, "message": str(failed)} and end(told)["status"] == "failed"


def test_a_stream_that_breaks_keeps_what_was_whole():
    encoder = asked().encoder()
    raw = (
        encoder.fed(chunk({"reasoning": "hm"}))
        + encoder.fed(chunk({"content": "hel"}))
        + encoder.failed(TierFailed("s", "broke"))
    )
    machine = Machine().read(raw)
    assert [item["type"] for item in machine.items] == ["reasoning"] and machine.item["type"] == "message"


def test_what_was_said_is_a_chat_message():
    encoder = asked(tools=TOOLS).encoder()
    assert encoder.said() == {"role": "assistant", "content": ""}
    for delta in ({"reasoning": "hm"}, {"content": "I look"}, piece(0, '{"input": "x"}', "patch", "call_1")):
        encoder.fed(chunk(delta))
    assert encoder.said() == {
        "role": "assistant",
        "content": "I look",
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "patch", "arguments": '{"input": "x"}'}}],
        "reasoning": "hm",
        "reasoning_tier": "large",
    }
