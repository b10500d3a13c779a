"""Which streams may go on at another replica, what is kept of them, and where the second call's events meet the first's."""

import json
import random
from zlib import crc32

import pytest

from router.errors import SeamDiffers
from router.request import resuming
from router.request.resuming import Rejoined, Seam, Sent, unfit, without_prompt

CHAT = {"model": "it", "messages": [{"role": "user", "content": "hi"}], "stream": True}
TEXT = {"model": "it", "prompt": "hi", "stream": True}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"temperature": 1.5, "top_p": 0.5, "seed": 3, "stop": ["END"], "max_tokens": 9, "min_tokens": 2},
        {"tools": TOOLS},
        {"tools": TOOLS, "tool_choice": "auto"},
        {"n": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "repetition_penalty": 1.1, "logprobs": False},
        {"response_format": {"type": "text"}, "return_token_ids": True, "logit_bias": {"3": 1}},
        {"stream_options": {"include_usage": True}, "thinking_token_budget": 30},
    ],
)
def test_plain_streams_may_go_on(more):
    assert unfit("chat/completions", CHAT | more) == ""


@pytest.mark.parametrize(
    "more, why",
    [
        ({"stream": False}, "not streamed"),
        ({"n": 2}, "several answers"),
        ({"response_format": {"type": "json_object"}}, "grammar"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "grammar"),
        ({"response_format": {"type": "structural_tag"}}, "grammar"),
        ({"structured_outputs": {"regex": "a"}}, "grammar"),
        ({"tools": TOOLS, "tool_choice": "required"}, "grammar"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "f"}}}, "grammar"),
        ({"presence_penalty": 0.1}, "presence_penalty"),
        ({"frequency_penalty": -1}, "frequency_penalty"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 2}, "logprobs"),
        ({"bad_words": ["x y"]}, "seam"),
        ({"use_beam_search": True}, "several"),
        ({"include_reasoning": False}, "thought"),
        ({"vllm_xargs": {"a": 1}}, "not known"),
    ],
)
def test_others_may_not(more, why):
    assert why in unfit("chat/completions", CHAT | more)


@pytest.mark.parametrize("more", [{"logprobs": 0}, {"logprobs": 2}, {"echo": True}, {"prompt": ["a", "b"]}, {"best_of": 2}])
def test_nor_completions_with_log_probabilities_an_echo_or_several_prompts(more):
    assert unfit("completions", TEXT) == "" and unfit("completions", TEXT | {"prompt": [1, 2]}) == ""
    assert unfit("completions", TEXT | more)


def chunk(delta, ids=None, finish=None, id="chatcmpl-1", created=7, **more):
    """An event as vLLM writes it."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish, **more, "token_ids": ids}
    if ids is None:
        del choice["token_ids"]
    head = {"id": id, "object": "chat.completion.chunk", "created": created, "model": "it", "choices": [choice]}
    return "data: " + json.dumps(head, separators=(",", ":"), ensure_ascii=False) + "\n\n"


def usage(**names):
    head = {"id": names.get("id", "chatcmpl-1"), "created": names.get("created", 7), "choices": [], "usage": {"prompt_tokens": 1}}
    return "data: " + json.dumps(head, separators=(",", ":")) + "\n\n"


def answer(**names):
    """Some text, with an event that holds a token alone, and odd characters."""
    return [
        chunk({"role": "assistant", "content": ""}, **names),
        chunk({"content": 'a "token_ids":[9] é\n\n'}, [1, 2], **names),
        chunk({}, [3], **names),
        chunk({"content": ""}, [], **names),
        chunk({"content": "🎉"}, [4, 5, 6], **names),
        chunk({"content": "."}, [7], "stop", stop_reason=None, **names),
        usage(**names),
        "data: [DONE]\n\n",
    ]


def plain(events):
    """The same as vLLM writes it for a client that asks for no ids."""
    return "".join(e for e in map(without_ids, events) if '"delta":{},' not in e)


def without_ids(event):
    return resuming.IDS.sub(b'"token_ids":null', event.encode()).decode()


def test_ids_are_kept_and_taken_out_whatever_events_come_together():
    events = answer()
    for seed in range(50):
        chance, sent, shown = random.Random(seed), Sent(), b""
        at = 0
        while at < len(events):
            n = chance.randint(1, 4)
            shown += sent.take("".join(events[at : at + n]).encode())
            at += n
        assert shown.decode() == plain(events)
        assert json.loads(b"[" + sent.ids.rstrip(b",") + b"]") == [[1, 2], [3], [], [4, 5, 6], [7]]
        assert (sent.tokens, sent.events, sent.counted, sent.calls) == (7, 5, True, False)
        assert (sent.size, sent.checksum) == (len(shown), crc32(shown))


def test_a_client_that_asks_for_ids_gets_them():
    sent = Sent(shows_ids=True)
    assert b"".join(sent.take(event.encode()) for event in answer()).decode() == "".join(answer()) and sent.tokens == 7


@pytest.mark.parametrize("cut", range(2, 7))
@pytest.mark.parametrize("shows_ids", [False, True])
def test_the_second_calls_events_follow_the_firsts_under_its_id(cut, shows_ids):
    sent = Sent(shows_ids)
    first = b"".join(sent.take(event.encode()) for event in answer()[:cut])
    seam = Seam.read(json.loads(json.dumps(Seam.of(CHAT, sent).as_json())))
    assert (seam.id, seam.created, seam.tokens) == ("chatcmpl-1", 7, sent.tokens)
    assert (seam.end is not None) == (cut > 5) and (seam.end is None or seam.end.reason == "stop")
    joint = Rejoined(seam)
    rest = [joint.take(event) for event in answer(id="chatcmpl-other", created=99)]
    whole = first + b"".join(sent.take(event.encode()) for event in rest if event)
    assert whole.decode() == ("".join(answer()) if shows_ids else plain(answer()))


def test_other_events_of_the_same_tokens_are_found_before_anything_is_sent():
    sent = Sent()
    for event in answer()[:5]:
        sent.take(event.encode())
    joint = Rejoined(Seam.of(CHAT, sent))
    other = [event.replace("🎉", "🎈") for event in answer(id="x")]
    with pytest.raises(SeamDiffers, match="same model"):
        assert not any(joint.take(event) for event in other)


def test_what_cannot_go_on():
    assert Sent().stuck() == "no token came"
    sent = Sent()
    sent.take(chunk({"content": "a"}, [1]).encode())
    assert sent.stuck() == ""
    sent.take(chunk({"content": 'says "tool_calls":[{'}, [1]).encode())
    assert sent.stuck() == ""
    sent.take(chunk({"tool_calls": [{"index": 0, "function": {"name": "f"}}]}, [2]).encode())
    assert sent.stuck() == "a tool call has begun"
    thinking = Sent(budget=True)
    thinking.take(chunk({"reasoning": "so"}, [1]).encode())
    assert "thought" in thinking.stuck()
    thinking.take(chunk({"content": "so"}, [1]).encode())
    assert thinking.stuck() == ""


def test_a_long_answer_is_not_kept_for_ever(monkeypatch):
    monkeypatch.setattr(resuming, "MOST_BYTES", 100)
    sent = Sent()
    for n in range(1000):
        sent.take(chunk({"content": "a"}, [n]).encode())
    assert len(sent.ids) < 120 and sent.stuck() == "its answer is too long" and sent.tokens == 1000


def test_the_prompts_ids_stay_at_the_replica():
    event = '{"choices":[{"delta":{"content":"\\"prompt_token_ids\\":[1]"}}],"prompt_token_ids":[1,2,3]}'
    assert json.loads(without_prompt(event)) == {**json.loads(event), "prompt_token_ids": None}
