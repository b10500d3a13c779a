"""The grammar holds whatever a tier sends in whatever order, and a stream says what the document says."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages_client import ABOUT, answered, called, chunk, heard, usage_chunk

from router.protocols.messages import read
from router.request.message_pieces import message_of

ASKED = {"model": "auto", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}
WORDS = st.sampled_from(["a", " ", "\n\n", "Grüße", "\ud83d", "}", '"', "日本", "b c"])


def asked(about=ABOUT, **more):
    return read({**ASKED, **more}, about)


@st.composite
def arguments(draw):
    """A JSON object, or a text of which no begin is one."""
    whole = st.dictionaries(
        st.text('ab{}"\\', max_size=3), st.integers() | WORDS.filter(lambda w: w != "\ud83d"), max_size=2
    ).map(json.dumps)
    return draw(whole | st.sampled_from(["", "no object", '{"cut": "of', "[1]"]))


@st.composite
def pieces(draw):
    """Deltas of one answer: text, reasoning, and calls whose pieces are interleaved with everything else."""
    texts = draw(st.lists(st.tuples(st.sampled_from(["content", "reasoning", "reasoning_content"]), WORDS), max_size=8))
    lanes = [[{kind: said} for kind, said in texts]]
    for index in range(draw(st.integers(0, 3))):
        text = draw(arguments())
        cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
        parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        begin = called(index, parts[0] if draw(st.booleans()) else "", f"f{index}", f"call_sd_{index}")
        rest = parts if not begin["tool_calls"][0]["function"]["arguments"] else parts[1:]
        lanes.append([begin, *(called(index, part) for part in rest)])
    order = draw(st.permutations([i for i, lane in enumerate(lanes) for _ in lane]))
    return [lanes[lane].pop(0) for lane in order]


def said_by_kind(content):
    """Texts and thoughts each joined, calls in order."""
    calls = [block for block in content if block["type"] == "tool_use"]
    return {kind: "".join(b[kind] for b in content if b["type"] == kind) for kind in ("text", "thinking")}, calls


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(pieces(), st.sampled_from([None, "stop", "length", "tool_calls", "content_filter"]), st.booleans(), st.integers(0, 9))
def test_the_grammar_holds_and_the_deltas_are_the_document(deltas, finish, with_usage, ping_at):
    edge = asked()
    encoder, raw = edge.encoder(7), []
    for i, delta in enumerate(deltas):
        raw += encoder.waiting() if i == ping_at else []
        raw += encoder.fed(chunk(delta))
    raw += encoder.fed(chunk(finish=finish)) if finish else []
    raw += encoder.fed(usage_chunk()) if with_usage else []
    raw += encoder.ended()
    message, _ = heard(raw)
    choices = [{"delta": {k: v for k, v in d.items() if k != "reasoning_content"} | renamed(d)} for d in deltas]
    document = edge.document(answered(message_of(choices)[0], finish))
    assert said_by_kind(message["content"]) == said_by_kind(document["content"])
    assert {k: v for k, v in message.items() if k not in ("content", "usage")} == {
        k: v for k, v in document.items() if k not in ("content", "usage")
    }
    assert not with_usage or message["usage"] == document["usage"]


def renamed(delta):
    return {"reasoning": delta["reasoning_content"]} if "reasoning_content" in delta else {}


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(pieces(), st.sampled_from(["text", "omitted", "disabled"]))
def test_what_was_said_is_what_comes_back(deltas, thinking):
    """The chat message of a stream is what `read` makes of the answer once the client has returned it."""
    fields = {"text": {}, "omitted": {"type": "adaptive", "display": "omitted"}, "disabled": {"type": "disabled"}}[thinking]
    edge = asked(thinking=fields or None)
    encoder = edge.encoder()
    raw = [*(event for delta in deltas for event in encoder.fed(chunk(delta))), *encoder.ended()]
    told, back = encoder.said(), again(heard(raw)[0]["content"])
    assert told.get("content") == back.get("content") and told.get("reasoning_tier") == back.get("reasoning_tier")
    assert encodable(told) is False or told.get("reasoning") == back.get("reasoning")
    names = [[(call["id"], call["function"]["name"]) for call in m.get("tool_calls", [])] for m in (told, back)]
    assert names[0] == names[1]


def encodable(message):
    return "\ud83d" not in (message.get("reasoning") or "")


def again(content):
    """The assistant's message of a request that continues this answer."""
    history = [*ASKED["messages"], {"role": "assistant", "content": content}, {"role": "user", "content": "go on"}]
    return read({**ASKED, "messages": history}, ABOUT).body["messages"][1]
