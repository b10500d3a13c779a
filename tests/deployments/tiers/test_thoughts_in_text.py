"""A tier that is known to think and has no parser: its thoughts get a field where its answers become answers."""

import asyncio
import json

import pytest

from deployments.tiers.fingerprints import ladder_fingerprints
from deployments.tiers.tier import DONE, Tier, event
from deployments.traffic.watched_tier import Watched
from router.config import Config
from router.tier_settings import Reasoning
from router.traffic.breaker import Breaker

CHAT = {"messages": [{"role": "user", "content": "six times seven"}]}
RAW = Reasoning(opened=True, switch="chat_template")


class Says(Tier):
    """Says this, whole or token by token, and notes what it was sent."""

    name = "it"
    first_token_s = None

    def __init__(self, *pieces, finish="stop", as_document=False):
        self.pieces, self.finish, self.as_document = pieces, finish, as_document
        self.bodies = []

    def document(self):
        message = {"role": "assistant", "content": "".join(self.pieces)}
        return json.dumps({"id": "1", "choices": [{"index": 0, "message": message, "finish_reason": self.finish}]}).encode()

    async def complete(self, path, body, reading=None, call_id=""):
        self.bodies.append(body)
        return self.document()

    async def stream(self, path, body, reading=None, call_id=""):
        self.bodies.append(body)
        if self.as_document:
            yield self.document()
            return
        for piece in self.pieces:
            yield event({"id": "1", "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]})
        yield event({"id": "1", "choices": [{"index": 0, "delta": {}, "finish_reason": self.finish}]})
        yield DONE


def watched(tier, reasoning):
    return Watched(tier, Breaker(lambda: 0.0, lambda: 0.0), context=1000, reasoning=reasoning)


def whole(reasoning, *pieces, body=CHAT, path="chat/completions", **more):
    raw = asyncio.run(watched(Says(*pieces, **more), reasoning).complete(path, body))
    return json.loads(raw)["choices"][0]["message"]


def streamed(reasoning, *pieces, body=CHAT, **more):
    """(thought, answer), joined."""

    async def run():
        return b"".join([item async for item in watched(Says(*pieces, **more), reasoning).stream("chat/completions", body)])

    parts = [json.loads(p[6:]) for p in asyncio.run(run()).split(b"\n\n") if p.startswith(b"data: {")]
    deltas = [c["delta"] for part in parts for c in part["choices"]]
    return tuple("".join(delta.get(name) or "" for delta in deltas) for name in ("reasoning", "content"))


@pytest.mark.parametrize("pieces", [["Six ", "sevens.", "</think>\n\n", "42"], ["<think>Six sevens.", "</th", "ink>42"]])
def test_the_thought_gets_a_field_whole_and_streamed(pieces):
    assert whole(RAW, *pieces) == {"role": "assistant", "content": "42", "reasoning": "Six sevens."}
    assert streamed(RAW, *pieces) == ("Six sevens.", "42")
    assert streamed(RAW, *pieces, as_document=True) == ("Six sevens.", "42")


def test_a_thought_that_was_cut_is_no_answer():
    assert whole(RAW, "Six sev", finish="length") == {"role": "assistant", "content": None, "reasoning": "Six sev"}
    assert streamed(RAW, "Six sev", "</th", finish="length") == ("Six sev</th", "")


@pytest.mark.parametrize("wish", [{"reasoning_effort": "none"}, {"response_format": {"type": "json_object"}}])
def test_an_answer_without_a_thought_is_the_answer(wish):
    assert whole(RAW, "42", body=CHAT | wish) == {"role": "assistant", "content": "42"}
    assert streamed(RAW, "4", "2", body=CHAT | wish) == ("", "42")


@pytest.mark.parametrize("reasoning", [None, Reasoning(parser="qwen3", opened=True)])
def test_the_bytes_of_other_tiers_stay(reasoning):
    pieces = ("<think>Six sevens.</think>", "42")
    assert whole(reasoning, *pieces)["content"] == "".join(pieces)
    assert streamed(reasoning, *pieces) == ("", "".join(pieces))


def test_a_tier_gets_the_wish_in_its_own_words():
    tier = Says("42")
    asyncio.run(watched(tier, RAW).complete("chat/completions", {**CHAT, "reasoning_effort": "none"}))
    assert tier.bodies == [{**CHAT, "chat_template_kwargs": {"enable_thinking": False}}]
    tier = Says("42")
    asyncio.run(watched(tier, None).complete("chat/completions", {**CHAT, "reasoning_effort": "none"}))
    assert tier.bodies == [{**CHAT, "reasoning_effort": "none"}]


def test_a_tier_gets_no_thought_of_another():
    thought = {"role": "assistant", "content": "41", "reasoning": "hm", "reasoning_tier": "other"}
    for reasoning in (None, RAW):
        tier = Says("42")
        asyncio.run(watched(tier, reasoning).complete("chat/completions", {"messages": [*CHAT["messages"], thought]}))
        assert tier.bodies[0]["messages"][1] == {"role": "assistant", "content": "41"}


# -- fingerprints ----------------------------------------------------------------------------------------------------------

PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
ENGINES = {"vllm": {"source": "org/model"}, "remote": {"url": "https://there/v1", "model": "m"}, "echo": {}}


def model_of(engine, **more):
    tier = {"name": "it", "engine": engine, "context": 100, "price": PRICE, **ENGINES[engine], **more}
    return ladder_fingerprints(Config.model_validate({"tiers": [tier]}))["models"]["it"]


@pytest.mark.parametrize("engine", ENGINES)
def test_how_a_tier_thinks_is_part_of_its_fingerprint(engine):
    kinds = [
        {},
        {"parser": "qwen3"},
        {"switch": "effort"},
        {"default": "off"},
        {"parser": "qwen3", "budget": 9},
        {"opened": True},
    ]
    prints = [model_of(engine), *(model_of(engine, reasoning=kind) for kind in kinds)]
    assert len(set(prints)) == len(prints)
