"""Whatever a tier says, callers get an answer that they can read, or that tier's failure: no other exception."""

import asyncio
import json

import pytest
from fuzzing import ANY, CALL, PART, TEXTS, cases, rarely, raw_json
from hypothesis import given
from hypothesis import strategies as st

from deployments.endpoint.held_answer import HeldAnswer
from deployments.endpoint.openai_json import parts_of, read_answer
from deployments.tiers.tier import DONE
from deployments.tiers.tier_answer import TierAnswers
from router.errors import RequestFailed
from router.trace import Reading
from router.types import Call

pytestmark = pytest.mark.slow

CHAT, TEXT = "chat/completions", "completions"
CONTEXT = 1_000
BODY = {"messages": [{"role": "user", "content": "one two three"}], "prompt": "one two three", "max_tokens": 10}
CALLED = Call("final", "it", "final", BODY)
FIGURE = rarely(st.integers(0, 12)) | ANY
DETAILS = st.dictionaries(st.sampled_from(["cached_tokens", "reasoning_tokens", "audio_tokens"]), FIGURE, max_size=2)
USAGE = st.fixed_dictionaries(
    {"prompt_tokens": FIGURE, "completion_tokens": FIGURE},
    optional={
        **dict.fromkeys(["total_tokens", "input_tokens", "output_tokens", "prompt_cache_hit_tokens", "cached_tokens"], FIGURE),
        **dict.fromkeys(["prompt_tokens_details", "completion_tokens_details"], rarely(DETAILS)),
    },
)
CHANCE = st.fixed_dictionaries({"token": TEXTS, "logprob": rarely(st.floats(-9, 0))})
CHANCES = st.fixed_dictionaries({"content": rarely(st.lists(rarely(CHANCE), max_size=2))})
CONTENT = rarely(TEXTS | st.none() | st.lists(rarely(PART), max_size=2))
SAID = st.fixed_dictionaries({"content": CONTENT}, optional={"tool_calls": rarely(st.lists(rarely(CALL), max_size=2))})
REASON = rarely(st.sampled_from(["stop", "length", None]))


def choices(key: str) -> st.SearchStrategy:
    more = {"logprobs": rarely(CHANCES), "index": rarely(st.just(0)), "usage": ANY}
    choice = st.fixed_dictionaries({key: rarely(SAID), "text": rarely(TEXTS), "finish_reason": REASON}, optional=more)
    return rarely(st.lists(rarely(choice), min_size=1, max_size=2))


def answers(key: str) -> st.SearchStrategy:
    more = {"usage": rarely(USAGE), "error": ANY, "object": ANY, "model": ANY}
    return st.fixed_dictionaries({"choices": choices(key)}, optional=more)


PIECES = st.sampled_from([DONE, b": comment\n\n", b"<html>", b"data:", b"\n\n", b"\r\n", b"event: error\n", b"\xff", b"[DONE]"])
EVENTS = raw_json(answers("delta")).map(lambda raw: b"data: " + raw + b"\n\n")


def check_usage(usage) -> None:
    if usage:
        assert all(type(usage[name]) is int for name in ("prompt_tokens", "completion_tokens", "total_tokens"))
        assert 0 < usage["prompt_tokens"] <= CONTEXT and 0 <= usage["completion_tokens"] <= 10 + CONTEXT
        parts = (usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {})
        assert all(0 <= part <= usage["total_tokens"] for details in parts for part in details.values() if part is not None)


@pytest.mark.slow
@given(raw_json(answers("message")), st.sampled_from([CHAT, TEXT]))
def test_whatever_document_a_tier_sends_is_an_answer_or_its_failure(raw, path):
    cases["a tier's document"] += 1
    reading = Reading()
    try:
        given = TierAnswers("it", CONTEXT).whole(raw, path, BODY, reading)
    except RequestFailed as error:
        json.dumps(error.body(), ensure_ascii=False).encode()
        return
    body = json.loads(given.decode("utf-8-sig"))
    json.dumps(body, ensure_ascii=False).encode()
    check_usage(body.get("usage"))
    assert 0 <= reading.cached_tokens <= (body.get("usage") or {}).get("prompt_tokens", 0)
    if path == CHAT:
        reply = read_answer(CALLED, body)
        assert isinstance(reply.text, str) and reply.usage.output_tokens >= 0
    else:
        assert all(isinstance(choice["text"], str) for choice in body["choices"])


@pytest.mark.slow
@given(st.lists(EVENTS | PIECES | st.binary(max_size=9), max_size=6), st.sampled_from([0, 1, 7, 50]))
def test_whatever_stream_a_tier_sends_is_an_answer_or_its_failure(parts, size):
    """size: bytes that come at once; 0: each part as it is."""
    cases["a tier's stream"] += 1
    raw = b"".join(parts)

    async def sent():
        for part in [raw[at : at + size] for at in range(0, len(raw), size)] if size else parts:
            yield part

    async def run() -> HeldAnswer:
        events = TierAnswers("it", CONTEXT).stream(sent(), CHAT, BODY, Reading())
        held = HeldAnswer(CALLED, watched(events), lambda: None)
        await held.read(1 << 30)
        return held

    got: list[bytes] = []

    async def watched(events):
        async for item in events:
            got.append(item)
            yield item

    try:
        reply = asyncio.run(run()).reply()
    except RequestFailed as error:
        json.dumps(error.body(), ensure_ascii=False).encode()
    else:
        assert got[-1].endswith(DONE) and isinstance(reply.text, str) and reply.usage.output_tokens >= 0
    assert all(item.endswith(b"\n\n") for item in got)
    for part in (part for item in got for part in parts_of(item) if part != b"[DONE]"):
        check_usage(json.loads(part).get("usage"))
