"""Streams: the grammar holds whatever a tier sends in whatever order, and a stream says what the document says."""

import json
from dataclasses import replace

import pytest
from messages_client import ABOUT, DELTAS, FakeSeals, answered, called, chunk, events_of, heard, usage_chunk

from router.errors import NoReplica
from router.protocols.messages import read

ASKED = {"model": "auto", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}


def asked(about=ABOUT, **more):
    return read({**ASKED, **more}, about)


def stream(chunks, edge=None, prompt_tokens=7):
    encoder = (edge or asked()).encoder(prompt_tokens)
    return [*(event for one in chunks for event in encoder.fed(one)), *encoder.ended()]


def kinds(raw):
    return [block["type"] for block in heard(raw)[0]["content"]]


def again(content):
    """The assistant's message of a request that continues this answer."""
    history = [*ASKED["messages"], {"role": "assistant", "content": content}, {"role": "user", "content": "go on"}]
    return read({**ASKED, "messages": history}, ABOUT).body["messages"][1]


def test_all_events_of_a_text():
    raw = stream([chunk({"role": "assistant", "content": "Hi"}), chunk({"content": " you"}), chunk(finish="stop"), usage_chunk()])
    names = [name for name, _ in events_of(raw)]
    assert names == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    first, last = next(events_of(raw))[1]["message"], list(events_of(raw))[-2][1]
    assert first == {
        "id": f"msg_{ABOUT.id}",
        "type": "message",
        "role": "assistant",
        "model": "auto",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 1},
    }
    assert last["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert last["usage"] == {
        "input_tokens": 12,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 5,
    }


def test_the_opening_chunk_may_say_everything_at_once():
    message, _ = heard(stream([chunk({"reasoning": "hm", "content": "a", **called(0, '{"x": 1}', "f", "c1")}, "tool_calls")]))
    assert message["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": FakeSeals().signature("hm", "small")},
        {"type": "text", "text": "a"},
        {"type": "tool_use", "id": "c1", "name": "f", "input": {"x": 1}},
    ]
    assert message["stop_reason"] == "tool_use"


@pytest.mark.parametrize(
    "chunks", [[], [chunk({"role": "assistant", "content": ""}, "stop")], [chunk({"content": "\n"}), usage_chunk()]]
)
def test_an_empty_answer_is_one_empty_text(chunks):
    assert heard(stream(chunks))[0]["content"] == [{"type": "text", "text": ""}]


def test_interleaved_calls_are_held():
    deltas = [
        called(0, "", "f", "c0"),
        called(0, '{"a":'),
        called(1, '{"b":', "g", "c1"),
        called(0, "1}"),
        called(1, "2}"),
        called(2, "{}", "h", "c2"),
    ]
    encoder = asked().encoder()
    before = [event for delta in deltas[:-1] for event in encoder.fed(chunk(delta))]
    third = encoder.fed(chunk(deltas[-1]))
    assert [name for name, _ in events_of(before)].count("content_block_start") == 1
    assert [name for name, _ in events_of(third)].count("content_block_start") == 2, "the first two are whole by now"
    content = heard([*before, *third, *encoder.ended()])[0]["content"]
    assert [(b["id"], b["name"], b["input"]) for b in content] == [("c0", "f", {"a": 1}), ("c1", "g", {"b": 2}), ("c2", "h", {})]


def test_arguments_stream_as_they_come():
    encoder = asked().encoder()
    encoder.fed(chunk(called(0, "", "f", "c0")))
    (event,) = encoder.fed(chunk(called(0, '{"city')))
    assert list(events_of([event])) == [
        (
            "content_block_delta",
            {"type": "content_block_delta", "index": 0, "delta": {"type": DELTAS["tool_use"][0], "partial_json": '{"city'}},
        )
    ]


def test_a_blank_between_reasoning_and_a_call_is_no_block():
    raw = stream([chunk({"reasoning": "hm"}), chunk({"content": "\n\n"}), chunk(called(0, "{}", "f", "c0"))])
    assert kinds(raw) == ["thinking", "tool_use"]


def test_a_blank_before_the_first_word_stays():
    assert heard(stream([chunk({"content": "\n"}), chunk({"content": "a"})]))[0]["content"] == [{"type": "text", "text": "\na"}]


def test_text_after_a_call_is_a_block_of_its_own():
    raw = stream([chunk({"content": "a"}), chunk(called(0, '{"x": 1}', "f", "c0")), chunk({"content": "b"})])
    assert kinds(raw) == ["text", "tool_use", "text"]


def test_a_call_whose_name_comes_late_waits_for_it():
    raw = stream([chunk(called(0, '{"x"', id_="c0")), chunk(called(0, ": 1}", "f"))])
    assert heard(raw)[0]["content"] == [{"type": "tool_use", "id": "c0", "name": "f", "input": {"x": 1}}]


def test_calls_without_ids_get_different_ones():
    content = heard(stream([chunk(called(0, "{}", "f")), chunk(called(1, "{}", "f"))]))[0]["content"]
    assert len({block["id"] for block in content}) == 2 and all(block["id"].startswith("toolu_") for block in content)


def test_waiting_opens_the_stream_once():
    encoder = asked().encoder()
    first, second = encoder.waiting(), encoder.waiting()
    assert [name for name, _ in events_of([*first, *second])] == ["message_start", "ping", "ping"]
    assert heard([*first, *second, *encoder.fed(chunk({"content": "a"})), *encoder.waiting(), *encoder.ended()])


def test_a_failure_is_the_last_event():
    encoder = asked().encoder()
    encoder.fed(chunk({"content": "a"}))
    ((name, body),) = events_of(encoder.failed(NoReplica("small", "it died", 3)))
    assert name == "error" and body["error"]["type"] == "overloaded_error" and "it died" in body["error"]["message"]
    assert (
        encoder.fed(chunk({"content": "b"})) == encoder.ended() == encoder.waiting() == encoder.failed(NoReplica("s", "x")) == []
    )


def test_nothing_follows_the_end():
    encoder = asked().encoder()
    assert encoder.ended()
    assert (
        encoder.fed(chunk({"content": "b"})) == encoder.ended() == encoder.waiting() == encoder.failed(NoReplica("s", "x")) == []
    )


@pytest.mark.parametrize(
    "finish, more, expected",
    [
        ("stop", {}, ("end_turn", None)),
        ("stop", {"stop_reason": "END"}, ("stop_sequence", "END")),
        ("stop", {"stop_reason": 151643}, ("end_turn", None)),
        ("length", {"stop_reason": "END"}, ("max_tokens", None)),
        ("content_filter", {}, ("refusal", None)),
        (None, {}, ("end_turn", None)),
    ],
)
def test_why_it_stopped(finish, more, expected):
    message, _ = heard(stream([chunk({"content": "a"}), chunk(finish=finish, **more)]))
    assert (message["stop_reason"], message["stop_sequence"]) == expected


def test_a_refusal_is_text():
    message, _ = heard(stream([chunk({"refusal": "I will "}), chunk({"refusal": "not"}, "stop")]))
    assert message["content"] == [{"type": "text", "text": "I will not"}] and message["stop_reason"] == "refusal"


def test_a_call_is_told_though_the_tier_says_stop():
    """As vLLM does where the client names the tool."""
    assert heard(stream([chunk(called(0, "{}", "f", "c0"), "stop")]))[0]["stop_reason"] == "tool_use"


def test_cached_tokens_and_our_own_usage():
    own = {"calls": 2, "cost_usd": 0.1}
    message, _ = heard(stream([chunk({"content": "a"}), usage_chunk(prompt_tokens_details={"cached_tokens": 10}, stepdown=own)]))
    assert message["usage"] == {
        "input_tokens": 2,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 10,
        "output_tokens": 5,
        "stepdown": own,
    }


def test_without_the_tiers_usage_ours_is_told():
    message, _ = heard(stream([chunk({"content": "a"}), chunk({"content": "b"})]))
    assert (message["usage"]["input_tokens"], message["usage"]["output_tokens"]) == (7, 2)


@pytest.mark.parametrize("about", [ABOUT, replace(ABOUT, reasoning="hidden")], ids=["asked", "configured"])
def test_reasoning_that_is_not_wanted_never_leaves(about):
    edge = asked(about, thinking={"type": "disabled"}) if about is ABOUT else asked(about)
    chunks = [chunk({"reasoning": "SECRET"}), chunk({"reasoning_content": "SECRET"}), chunk({"content": "a"})]
    raw = stream(chunks, edge)
    assert kinds(raw) == ["text"] and b"SECRET" not in b"".join(raw)
    assert "SECRET" not in json.dumps(edge.document(answered({"reasoning": "SECRET", "content": "a"})))


def test_omitted_reasoning_can_be_continued():
    raw = stream(
        [chunk({"reasoning": "SECRET"}), chunk({"content": "a"})], asked(thinking={"type": "adaptive", "display": "omitted"})
    )
    content = heard(raw)[0]["content"]
    assert content[0]["thinking"] == "" and b"SECRET" not in b"".join(raw)
    assert again(content) == {"role": "assistant", "content": "a", "reasoning": "SECRET", "reasoning_tier": "small"}


def test_both_names_of_reasoning_are_one_reasoning():
    content = heard(stream([chunk({"reasoning": "hm", "reasoning_content": "hm"})]))[0]["content"]
    assert content[0]["thinking"] == "hm"
