"""Any chunks, in any order, interleaved as they may be: the grammar holds, and a stream says what a whole answer would."""

import json

import pytest
from asking import about, asked, chat, chunk, function, piece
from grammar import Machine
from hypothesis import given
from hypothesis import strategies as st

from router.errors import NoReplica, TierFailed
from router.request.message_pieces import joined

pytestmark = pytest.mark.slow

TOOLS = [
    function("f"),
    {"type": "namespace", "name": "ns", "tools": [function("g"), {"type": "custom", "name": "c"}]},
    {"type": "custom", "name": "patch"},
    {"type": "shell"},
    {"type": "local_shell"},
    {"type": "apply_patch"},
]
NAMES = ["f", "ns__g", "ns__c", "patch", "shell", "local_shell", "apply_patch", "never_offered"]
TEXTS = st.text(min_size=1, max_size=8) | st.sampled_from([" ", "\n\n", "é\u2028", "\U0001f600", '"\\'])
DELTAS = st.one_of(
    st.builds(lambda text: {"content": text}, TEXTS),
    st.builds(lambda text: {"reasoning": text}, TEXTS),
    st.builds(lambda text: {"refusal": text}, TEXTS),
    st.builds(lambda thought, text: {"reasoning": thought, "content": text}, TEXTS, TEXTS),
    st.just({"role": "assistant", "content": ""}),
    st.just({}),
)
COMPLETE = st.one_of(
    st.dictionaries(st.sampled_from(["input", "a"]), TEXTS),
    st.just({"commands": ["ls"]}),
    st.just({"command": ["ls"], "timeout_ms": 1}),
    st.just({"type": "delete_file", "path": "a", "diff": None}),
).map(json.dumps)
CUT_OFF = COMPLETE.map(lambda text: text[:-1]) | st.sampled_from(["", "no JSON", '{"input": "\\u', '{"input": "\\ud83d', "["])


@st.composite
def calls(draw, index):
    """The pieces of one call, in order. Arguments that are complete stay so."""
    arguments = draw(COMPLETE | CUT_OFF)
    cuts = sorted(draw(st.lists(st.integers(0, len(arguments)), max_size=4)))
    pieces = [arguments[a:b] for a, b in zip([0, *cuts], [*cuts, len(arguments)], strict=True)]
    return [piece(index, pieces[0], draw(st.sampled_from(NAMES)), f"call_{index}"), *(piece(index, text) for text in pieces[1:])]


def renamed(delta, name):
    return {name if key == "reasoning" else key: value for key, value in delta.items()}


@st.composite
def streams(draw):
    """(deltas, finish reason or None). A tier has one name for reasoning."""
    lines = [draw(st.lists(DELTAS, max_size=6)), *(draw(calls(i)) for i in range(draw(st.integers(0, 3))))]
    order = draw(st.permutations([i for i, line in enumerate(lines) for _ in line]))
    ways = [iter(line) for line in lines]
    name = draw(st.sampled_from(["reasoning", "reasoning_content"]))
    return [renamed(next(ways[i]), name) for i in order], draw(
        st.sampled_from([None, "stop", "length", "tool_calls", "content_filter"])
    )


def text_of(items, part):
    parts = [held for item in items for held in [*item.get("content", []), *item.get("summary", [])]]
    return "".join(held.get("text", held.get("refusal")) for held in parts if held["type"] == part)


def calls_of(items):
    return [{k: v for k, v in item.items() if k not in ("id", "status")} for item in items if "call_id" in item]


def same_text(stream, whole):
    """White space that came last, behind a call or reasoning, is no message of its own."""
    return whole.startswith(stream) and not whole[len(stream) :].strip()


@given(
    streams(),
    st.sampled_from(["summary", "text", "hidden"]),
    st.sampled_from([[], ["reasoning.encrypted_content"]]),
    st.lists(st.booleans(), max_size=6),
)
def test_a_stream_follows_the_grammar_and_says_what_a_whole_answer_says(stream, reasoning, include, waits):
    deltas, finish = stream
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    edge = asked(about(reasoning=reasoning), tools=TOOLS, include=include)
    encoder, machine = edge.encoder(), Machine()
    for delta, wait in zip(deltas, [*waits, *[False] * len(deltas)], strict=False):
        if wait:
            machine.read(encoder.waiting())
        machine.read(encoder.fed(chunk(delta)))
    machine.read(encoder.fed(chunk({}, finish))) if finish else None
    machine.read(encoder.fed(chunk(usage=usage)) + encoder.ended())
    assert machine.over

    document = chat(finish, usage, **joined(deltas))
    whole = edge.document(document)
    for part in ("refusal", "summary_text", "reasoning_text"):
        assert text_of(machine.items, part) == text_of(whole["output"], part)
    assert same_text(text_of(machine.items, "output_text"), text_of(whole["output"], "output_text"))
    assert calls_of(machine.items) == calls_of(whole["output"])
    assert encoder.said() == edge.said(document)
    assert (
        bool(machine.items) == bool(whole["output"]) and {**machine.response, "status": whole["status"]}.items() <= whole.items()
    )


@given(streams(), st.integers(0, 8), st.sampled_from([NoReplica("small", "it died"), TierFailed("small", "broke")]))
def test_a_stream_may_break_anywhere(stream, at, failed):
    encoder, machine = asked(tools=TOOLS).encoder(), Machine()
    for delta in stream[0][:at]:
        machine.read(encoder.fed(chunk(delta)))
    machine.read(encoder.failed(failed))
    assert machine.over
    assert encoder.failed(failed) + encoder.waiting() + encoder.ended() + encoder.fed(chunk({"content": "late"})) == []


@given(st.text(max_size=20), st.lists(st.integers(0, 60), max_size=5))
def test_the_input_of_a_custom_tool_is_unwrapped_the_same_way_however_it_is_cut(text, at):
    for ascii_only in (True, False):
        arguments = json.dumps({"input": text}, ensure_ascii=ascii_only)
        cuts = sorted(min(cut, len(arguments)) for cut in at)
        encoder = asked(tools=TOOLS).encoder()
        machine = Machine().read(encoder.fed(chunk(piece(0, "", "patch", "call_1"))))
        for a, b in zip([0, *cuts], [*cuts, len(arguments)], strict=True):
            machine.read(encoder.fed(chunk(piece(0, arguments[a:b]))))
        machine.read(encoder.ended())
        assert [(item["type"], item["name"], item["input"]) for item in machine.items] == [("custom_tool_call", "patch", text)]
