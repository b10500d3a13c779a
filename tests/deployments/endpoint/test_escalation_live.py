"""Escalation through a real server, with the `openai` client as it is: not one byte of a draft reaches it."""

import asyncio
import contextlib
import time

import openai
import pytest
from live import OneFlow, ladder, serving
from scripted_tier import Said, ScriptedTier, asked, down

from router.cascade.flow import Cascade
from router.cascade.race import Race
from router.config import Escalation
from router.types import Accept, GoUp

DRAFT, ANSWER = "this draft must never be seen by anyone", "the large answer, word by word"
CHAT = {"model": "auto", "messages": [{"role": "user", "content": "a question of six words indeed"}]}


class Sure:
    def next(self, answers):
        for tier, reply in answers.items():
            if min(reply.logprobs) > -1:
                return Accept(tier)
        return GoUp(("large",), "low confidence")


def flow(mode):
    def make(router, request, decided):
        settings = Escalation(mode=mode, holdback_tokens=3)
        return Cascade(request.body, router.names, Sure(), settings, request.stream).run(["small"])

    return make


def tiers(small=Said(DRAFT, logprob=-4.0), large=Said(ANSWER)):
    return {
        "small": ScriptedTier("small", lambda body: small),
        "medium": ScriptedTier("medium", lambda body: Said("unused")),
        "large": ScriptedTier("large", lambda body: large),
    }


@pytest.fixture(params=["buffer", "holdback"])
def mode(request):
    return request.param


def ask(url, way):
    """(text, usage) as a client gets them, by one of the ways there are."""
    if way == "async":
        return asyncio.run(ask_async(url))
    client = openai.OpenAI(base_url=url, api_key="x", max_retries=0)
    if way == "whole":
        answer = client.chat.completions.create(**CHAT)
        return answer.choices[0].message.content, answer.usage
    if way == "helper":
        with client.chat.completions.stream(**CHAT, stream_options={"include_usage": True}) as stream:
            final = stream.get_final_completion()
        return final.choices[0].message.content, final.usage
    text, usage = "", None
    for chunk in client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        if not chunk.usage:
            text += chunk.choices[0].delta.content or ""
            assert getattr(chunk.choices[0], "logprobs", None) is None  # asked for by us, not by the client
    return text, usage


async def ask_async(url):
    text, usage = "", None
    async with openai.AsyncOpenAI(base_url=url, api_key="x", max_retries=0) as client:
        async for chunk in await client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True}):
            usage = chunk.usage or usage
            text += "" if chunk.usage else chunk.choices[0].delta.content or ""
    return text, usage


@pytest.mark.parametrize("way", ["whole", "stream", "async", "helper"])
def test_after_an_escalation_the_text_is_the_large_answer_exactly(mode, way):
    made = tiers()
    with serving(OneFlow(ladder(), flow(mode)), made) as url:
        text, usage = ask(url, way)
    assert text == ANSWER
    spent = [call for tier in made.values() for call in tier.ledger]
    told = usage.model_extra["stepdown"]
    assert told["total"]["prompt_tokens"] == sum(given for given, _ in spent) == 12
    assert (usage.prompt_tokens, usage.completion_tokens) == made["large"].ledger[-1]  # the accepted call's own
    assert [c["outcome"] for c in told["calls"]] == ["low confidence", "accepted"]
    sums = sum(c["completion_tokens"] for c in told["calls"]), sum(out for _, out in spent)
    assert (told["total"]["completion_tokens"],) * 2 == sums


@pytest.mark.parametrize("way", ["whole", "stream", "async", "helper"])
def test_an_accepted_answer_costs_one_call(mode, way):
    made = tiers(small=Said("short and right"))
    with serving(OneFlow(ladder(), flow(mode)), made) as url:
        text, usage = ask(url, way)
    assert text == "short and right" and not made["large"].bodies
    assert usage.total_tokens == 9


@pytest.mark.slow
def test_holdback_commits_at_its_first_tokens_and_streams_on():
    slow = Said("one two three four five six seven eight", token_s=0.15)
    with serving(OneFlow(ladder(), flow("holdback")), tiers(small=slow)) as url:
        came, client = [], openai.OpenAI(base_url=url, api_key="x", max_retries=0)
        for chunk in client.chat.completions.create(**CHAT, stream=True):
            if chunk.choices and chunk.choices[0].delta.content:
                came.append(time.monotonic())
    assert len(came) == 8 and came[-1] - came[2] > 0.5  # the first three at once, the others as they are made


def test_a_draft_given_up_stops_generating_at_once(mode):
    endless = Said("word " * 400, logprob=-4.0, token_s=0.01)
    made = tiers(small=endless)
    with serving(OneFlow(ladder(), flow("holdback")), made) as url:
        assert ask(url, "stream")[0] == ANSWER
    assert made["small"].given_up == 1 and made["small"].ledger[0][1] < 60


@pytest.mark.slow
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_every_call_within_a_second(stream, mode):
    made = tiers(small=Said("word " * 400, token_s=0.05))
    with serving(OneFlow(ladder(), flow(mode)), made) as url:
        client = openai.OpenAI(base_url=url, api_key="x", max_retries=0, timeout=0.4)
        with contextlib.suppress(openai.APITimeoutError):  # a stream that has begun does not time out: leave it
            answer = client.chat.completions.create(**CHAT, stream=stream)
            next(iter(answer))
            answer.close()
        client.close()
        until = time.monotonic() + 1.0
        while made["small"].running and time.monotonic() < until:
            time.sleep(0.02)
        assert made["small"].running == 0 and made["small"].given_up == 1


def test_a_tier_that_dies_in_mid_answer_after_the_commit_ends_the_stream_with_an_error():
    made = tiers(small=Said("one two three four five six", dies_after=5))
    with serving(OneFlow(ladder(), flow("holdback")), made) as url:
        client = openai.OpenAI(base_url=url, api_key="x", max_retries=0)
        with pytest.raises(openai.APIError, match="its replica failed"):
            list(client.chat.completions.create(**CHAT, stream=True))


@pytest.mark.parametrize("stream", [True, False])
def test_with_every_tier_down_the_client_gets_503(stream):
    made = {name: ScriptedTier(name, lambda body, name=name: down(name)) for name in ("small", "medium", "large")}
    with serving(OneFlow(ladder(), flow("buffer")), made) as url:
        client = openai.OpenAI(base_url=url, api_key="x", max_retries=0)
        with pytest.raises(openai.InternalServerError) as raised:
            client.chat.completions.create(**CHAT, stream=stream)
        assert raised.value.status_code == 503 and raised.value.response.headers["retry-after"] == "10"


@pytest.mark.slow
def test_a_long_wait_is_kept_open_by_comments_that_clients_do_not_see(monkeypatch):
    monkeypatch.setattr("deployments.endpoint.answering.HEARTBEAT_S", 0.1)
    import httpx

    made = tiers(small=Said("late", wait_s=0.35))
    with serving(OneFlow(ladder(), flow("buffer")), made) as url:
        raw = httpx.post(f"{url}/chat/completions", json={**CHAT, "stream": True}).text
        assert raw.count(": stepdown asking small") >= 2
        assert ask(url, "stream")[0] == "late"


def test_log_probabilities_that_the_client_asks_for_are_kept(mode):
    with serving(OneFlow(ladder(), flow(mode)), tiers()) as url:
        client = openai.OpenAI(base_url=url, api_key="x", max_retries=0)
        answer = client.chat.completions.create(**CHAT, logprobs=True)
        assert len(answer.choices[0].logprobs.content) == len(ANSWER.split())


def test_prompts_reach_the_tiers_untouched(mode):
    made = tiers(small=Said("right"))
    with serving(OneFlow(ladder(), flow(mode)), made) as url:
        openai.OpenAI(base_url=url, api_key="x").chat.completions.create(**CHAT, seed=7, extra_body={"top_k": 3})
    assert asked(made["small"].bodies[0]) == CHAT["messages"][0]["content"]
    assert made["small"].bodies[0]["seed"] == 7 and made["small"].bodies[0]["top_k"] == 3


@pytest.mark.parametrize("way", ["whole", "stream", "async", "helper"])
def test_a_late_tier_is_outrun_stopped_and_paid_for(way):
    """Its first word comes after five seconds; the large tier is asked after a tenth of one."""

    def race(router, request, decided):
        return Race(request.body, ("small", "large"), 0.1).run()

    made = tiers(small=Said(DRAFT, wait_s=5.0))
    with serving(OneFlow(ladder(), race), made) as url:
        text, usage = ask(url, way)
    assert text == ANSWER and (made["small"].running, made["small"].given_up) == (0, 1)
    told = usage.model_extra["stepdown"]
    assert {call["tier"]: call["outcome"] for call in told["calls"]} == {"small": "outrun", "large": "accepted"}
    assert told["hedged"] and all(call["prompt_tokens"] == 6 for call in told["calls"])
