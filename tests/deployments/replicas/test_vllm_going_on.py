"""A stream that goes on at another replica says what it would have said: with vLLM's own detokenizer, parsers and events.

Each answer is cut after every one of its items. Only the model is made up (vllm_double.py).
"""

import asyncio
import json
import random
import re
import time

import pytest
import vllm_double

from deployments.lane.client import LaneLost
from deployments.tiers.serve_tier import CallPolicy, ServeTier
from deployments.tiers.tier import DONE, WENT_ON
from deployments.traffic.watched_tier import Watched
from router.errors import TierFailed
from router.trace import Reading
from router.traffic.breaker import Breaker
from router.traffic.retries import Retries

pytestmark = pytest.mark.slow  # importing Ray's replica and vLLM takes ten seconds and more
CHAT = {"model": "it", "messages": [{"role": "user", "content": "hi"}], "stream": True, "stream_options": {"include_usage": True}}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
CALL = 'I look. <tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
READ = []


def read():
    READ or READ.append(vllm_double.tokenizer())
    return READ[0]


@pytest.fixture(autouse=True)
def unbatched(monkeypatch):
    """Every event of the replica is an item of its own, so that each can be the last."""
    from deployments.replicas import vllm_tier

    monkeypatch.setattr(vllm_tier, "batched", lambda items: items)


class Items:
    """What a handle gives back; its replica is lost after `most` items, or its engine fails then."""

    def __init__(self, items, most, failing=False) -> None:
        self.items, self.most, self.failing = items, most, failing

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self.most == 0:
            if not self.failing:
                await self.items.aclose()
                raise LaneLost("killed")
            self.failing, self.most = False, -1
            return 200, 'data: {"error":{"message":"EngineCore encountered an issue","code":500}}\n\n', ""
        self.most -= 1
        return await anext(self.items)

    def cancel(self):
        self.closing = asyncio.ensure_future(self.items.aclose())


class Handle:
    """Two replicas of one tier. dies: items after which each call in turn is lost; none: it ends well."""

    deployment_name = "tier-outliving"

    def __init__(self, replicas, dies, failing=False) -> None:
        self.replicas, self.dies, self.failing, self.calls = replicas, list(dies), failing, []

    def options(self, **_):
        return self

    def remote(self, *arguments):
        at = len(self.calls)
        self.calls.append(arguments)
        items = self.replicas[at % len(self.replicas)].openai(*arguments)
        return Items(items, self.dies[at] if at < len(self.dies) else -1, self.failing)


async def one():
    return 1


def tier_of(script, dies=(), seed=0, retries=None, failing=False, resumes=True, **parsers):
    """(tier, handle)"""
    ids = [*read().encode(script), read().eos_token_id] + [ord("x")] * 600
    made = [vllm_double.replica(f"r{n}", read(), ids, seed, **parsers) for n in range(2)]
    handle = Handle(made, dies, failing)
    tier = ServeTier("it", handle, one, CallPolicy(10.0, resumes=resumes))
    breaker = Breaker(time.monotonic, random.random)
    return Watched(tier, breaker, retries or Retries(lambda: 0.0), replicas=2, context=5_000), handle


async def said(tier, path="chat/completions", reading=None, **more):
    body = {"model": "it", "prompt": "hi", "max_tokens": 400, **CHAT, **more} if path == "completions" else {**CHAT, **more}
    if path == "completions":
        body.pop("messages")
    return [item async for item in tier.stream(path, body, reading or Reading(), "t/c")]


def told(items):
    """The events without comments, their id, time and cached tokens."""
    raw = re.sub(rb'"id": ?"[^"]*"', b'"id":""', b"".join(items).replace(WENT_ON, b""))
    raw = re.sub(rb'"created": ?\d+', b'"created":0', raw)
    return re.sub(rb', "prompt_tokens_details": \{[^}]*\}|,"prompt_tokens_details":\{[^}]*\}', b"", raw)


def chunks(items):
    return [json.loads(line[6:]) for line in b"".join(items).split(b"\n\n") if line.startswith(b"data: {")]


def text(items):
    choices = [choice for chunk in chunks(items) for choice in chunk["choices"]]
    return "".join((c.get("delta") or {}).get("content") or c.get("text") or "" for c in choices)


def joined(items):
    """What a client makes of the events, whatever they were cut into."""
    found = {"text": text(items), "finish": [], "usage": None, "reasoning": ""}
    for chunk in chunks(items):
        found["usage"] = chunk.get("usage") or found["usage"]
        for choice in chunk["choices"]:
            found["reasoning"] += (choice.get("delta") or {}).get("reasoning") or ""
            if choice.get("finish_reason"):
                found["finish"].append((choice["finish_reason"], choice.get("stop_reason")))
    found["usage"].pop("prompt_tokens_details", None)
    return found


CASES = {
    "plain": ("hello, this is an answer", {}, {}),
    "characters of several tokens": ("a 🎉 b é漢字 👩‍👩‍👧 end", {}, {}),
    "a stop string": ("one two three STOPPED never said", {"stop": ["STOPPED"]}, {}),
    "a stop string that is shown": ("one two three STOPPED never", {"stop": ["STOP"], "include_stop_str_in_output": True}, {}),
    "a stop string of odd characters": ("one é🎉é two", {"stop": ["🎉é"]}, {}),
    "a limit": ("a long answer that is cut somewhere", {"max_tokens": 17}, {}),
    "a limit within a character": ("abc🎉def", {"max_tokens": 5}, {}),
    "a least length": ("a stop b stop c stop d", {"min_tokens": 10, "stop": ["stop"]}, {}),
    "tools that are not called": ("I need no <tool, nor <tool_cal at all", {"tools": TOOLS}, {"tools": "hermes"}),
    "a thought": ("<think>so it is 🎉</think>then the answer é", {}, {"thoughts": "qwen3"}),
    "ids that are asked for": ("a 🎉 b", {"return_token_ids": True}, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_joined_stream_is_the_uninterrupted_one_wherever_it_is_cut(name):
    script, more, parsers = CASES[name]

    async def scenario():
        tier, handle = tier_of(script, **parsers)
        whole = await said(tier, **more)
        raw = [event async for event in items_of(tier_of(script, **parsers)[1], more)]
        usual = joined(whole)
        assert len(raw) > 4 and whole[-1].endswith(DONE) and WENT_ON not in whole
        for cut in range(1, len(raw) + 1):
            tier, handle = tier_of(script, dies=[cut], **parsers)
            reading = Reading()
            items = await said(tier, reading=reading, **more)
            assert joined(items) == usual, cut
            assert items[-1].endswith(DONE) and len({chunk["id"] for chunk in chunks(items)}) == 1
            assert len({chunk["created"] for chunk in chunks(items)}) == 1
            again = reading.resumed
            if again:
                assert b"".join(items).count(WENT_ON) <= 1 and handle.calls[1][0] == "again:chat/completions"
                engine = handle.replicas[1].engine
                if engine.prompts:
                    assert len(engine.prompts[0]) == engine.asked + again.tokens
                    assert engine.stopped == 0 or "stop" in more

    asyncio.run(scenario())


async def items_of(handle, more):
    """The events of one call as a replica tells them."""
    async for _, event, _ in handle.replicas[0].openai("kept:chat/completions", json.dumps({**CHAT, **more})):
        yield event


def test_the_bytes_are_those_of_a_call_that_is_not_kept():
    """As the answer came before streams could go on, but for empty events of which vLLM sends none then."""

    async def scenario():
        for script, more, parsers in CASES.values():
            kept = await said(tier_of(script, **parsers)[0], **more)
            bare = await said(tier_of(script, resumes=False, **parsers)[0], **more)
            assert more.get("return_token_ids") or told(kept) == told(bare)

    asyncio.run(scenario())


def test_completions_go_on_too():
    async def scenario():
        usual = joined(await said(tier_of("some text é🎉 END more")[0], "completions", stop=["END"]))
        assert usual["text"] == "some text é🎉 "
        for cut in range(1, 12):
            tier, handle = tier_of("some text é🎉 END more", dies=[cut])
            assert joined(await said(tier, "completions", stop=["END"])) == usual
            assert len(handle.calls) == 2

    asyncio.run(scenario())


def test_an_engine_that_fails_is_a_lost_replica_and_both_calls_are_measured():
    async def scenario():
        usual = await said(tier_of("hello, this is an answer")[0])
        tier, handle = tier_of("hello, this is an answer", dies=[5], failing=True)
        reading = Reading()
        items = await said(tier, reading=reading)
        assert joined(items) == joined(usual)
        again = reading.resumed
        assert again.reading.replica == "r1" and again.reading.busy_s is not None and again.tokens > 3
        assert again.reading.cached_tokens == 3 and reading.cached_tokens == 0
        assert handle.calls[1][2] == "t/c-resumed" and not tier.breaker.circuits

    asyncio.run(scenario())


BEYOND = {
    "a grammar": {"response_format": {"type": "json_object"}},
    "several answers": {"n": 2},
    "penalties": {"presence_penalty": 0.5},
    "log-probabilities": {"logprobs": True, "top_logprobs": 1},
    "a tool that is demanded": {"tools": TOOLS, "tool_choice": "required"},
}


@pytest.mark.parametrize("name", BEYOND)
def test_what_depends_on_the_whole_call_ends_in_the_error_of_before(name):
    async def scenario():
        tier, handle = tier_of("hello, this", dies=[3])
        with pytest.raises(TierFailed, match="its replica failed in mid-answer"):
            await said(tier, **BEYOND[name]) if name != "log-probabilities" else await cut_short(tier, BEYOND[name])
        assert [call[0] for call in handle.calls] == ["chat/completions"]

    asyncio.run(scenario())


async def cut_short(tier, more):
    """The double has no log-probabilities: the request is only looked at."""
    from router.request.resuming import unfit

    assert unfit("chat/completions", {**CHAT, **more})
    del more
    return await said(tier, presence_penalty=1)


def test_the_replica_itself_refuses_what_only_its_parameters_show():
    from vllm import SamplingParams

    from deployments.replicas.resuming.vllm_going_on import check

    prompt = {"type": "token", "prompt_token_ids": [1]}
    check(SamplingParams(temperature=0.3, stop=["a"], seed=1, max_tokens=4, min_tokens=2, repetition_penalty=1.2), prompt)
    for odd in ({"presence_penalty": 1.0}, {"logprobs": 0}, {"n": 2}, {"bad_words": ["a"]}, {"extra_args": {"a": 1}}):
        with pytest.raises(ValueError, match=next(iter(odd))):
            check(SamplingParams(**odd), prompt)
    with pytest.raises(ValueError, match="a prompt of other"):
        check(SamplingParams(), {"type": "embeds"})


def test_after_a_tool_call_began_it_ends_in_an_error_and_before_it_goes_on():
    async def scenario():
        usual = tier_of(CALL, tools="hermes")[0]
        whole = chunks(await said(usual, tools=TOOLS))
        assert any(c["delta"].get("tool_calls") for chunk in whole for c in chunk["choices"])
        ends, fails = 0, 0
        for cut in range(2, 30):
            tier, handle = tier_of(CALL, dies=[cut], tools="hermes")
            try:
                found = chunks(await said(tier, tools=TOOLS))
                ends += 1
            except TierFailed:
                fails += 1
                assert len(handle.calls) == 1
                continue
            calls = [call for chunk in found for c in chunk["choices"] for call in c["delta"].get("tool_calls") or []]
            assert "".join((call["function"].get("arguments") or "") for call in calls) == '{"a": 1}'
        assert ends > 3 and fails > 3

    asyncio.run(scenario())


def test_the_second_replica_lost_too_is_the_error_of_today_and_there_is_no_third():
    async def scenario():
        for second in (0, 1, 2):
            tier, handle = tier_of("hello, this is an answer", dies=[4, second])
            reading = Reading()
            with pytest.raises(TierFailed, match="its replica failed in mid-answer"):
                await said(tier, reading=reading)
            assert len(handle.calls) == 2 and (reading.resumed is not None) == (second > 0)

    asyncio.run(scenario())


def test_no_retry_is_left():
    async def scenario():
        tier, handle = tier_of("hello, this is an answer", dies=[4], retries=Retries(lambda: 0.0, left=0.0))
        with pytest.raises(TierFailed):
            await said(tier)
        assert len(handle.calls) == 1

    asyncio.run(scenario())


def test_another_model_at_the_second_replica_is_found_before_it_says_anything():
    async def scenario():
        tier, handle = tier_of("hello 🎉 this is an answer", dies=[12])
        handle.replicas[1].engine.renderer.tokenizer = other = vllm_double.tokenizer()
        other._tokenizer.decoder = __import__("tokenizers").decoders.Replace("h", "H")
        shown = []
        with pytest.raises(TierFailed, match="its replica failed in mid-answer"):
            async for item in tier.stream("chat/completions", CHAT, Reading(), "t/c"):
                shown.append(item)
        assert WENT_ON not in b"".join(shown) and handle.calls[1][0] == "again:chat/completions"
        assert handle.replicas[1].streak.failed == 0  # it is not ill

    asyncio.run(scenario())


def test_a_client_that_leaves_at_the_seam_stops_both():
    async def scenario():
        tier, handle = tier_of("hello, this is an answer", dies=[4])
        reading = Reading()
        events = tier.stream("chat/completions", CHAT, reading, "t/c")
        async for item in events:
            if WENT_ON in item:
                break
        await events.aclose()
        await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        assert reading.resumed and handle.replicas[1].engine.stopped == 1 and tier.running == 0

    asyncio.run(scenario())


def test_a_seed_begins_anew_as_another_one_and_limits_are_what_is_left():
    async def scenario():
        tier, handle = tier_of("hello, this is an answer", dies=[6])
        reading = Reading()
        await said(tier, reading=reading, seed=7, max_tokens=22, min_tokens=4, stop=["zzz"])
        second, k = handle.replicas[1].engine.params[0], reading.resumed.tokens
        assert (second.seed, second.max_tokens, second.min_tokens, second.stop) == (7 + k, 22 - k, max(0, 4 - k), [])

    asyncio.run(scenario())


def test_vllm_still_has_what_goes_on():
    import inspect

    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
    from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.detokenizer import IncrementalDetokenizer

    for kind in (OpenAIServingChat, OpenAIServingCompletion):
        assert "self.engine_client.generate(" in inspect.getsource(kind)
    assert list(inspect.signature(AsyncLLM.generate).parameters)[1:4] == ["prompt", "sampling_params", "request_id"]
    assert callable(IncrementalDetokenizer.from_new_request)
