"""Delegation through a real server: side by side, paid for, streamed, never at the client's risk."""

import asyncio
import json
import time

import httpx
import openai
import pytest
from delegation import CHAT, DIRECT, LONG, PARTS, client, is_plan, served, tiers
from scripted_tier import Said, asked, down

from router.errors import TierFailed


def ask(url, stream=False, **more):
    """(text, usage)"""
    body = {**CHAT, **more}
    if not stream:
        answer = client(url).chat.completions.create(**body)
        return answer.choices[0].message.content, answer.usage
    text, usage = "", None
    for chunk in client(url).chat.completions.create(**body, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        text += chunk.choices[0].delta.content or "" if chunk.choices else ""
        assert chunk.choices or chunk.usage
    return text, usage


def total(usage):
    """The tokens of all calls, as the client is told."""
    told = usage.model_extra["stepdown"]["total"]
    return told["prompt_tokens"], told["completion_tokens"]


def spent(made) -> tuple[int, int]:
    calls = [call for tier in made.values() for call in tier.ledger]
    return sum(given for given, _ in calls), sum(out for _, out in calls)


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_eight_parts_run_side_by_side_and_the_sum_is_told(stream):
    made = tiers()
    with served(made) as url:
        began = time.monotonic()
        text, usage = ask(url, stream)
        took = time.monotonic() - began
    assert text == "\n".join(f"{i}. did {i}" for i in range(1, PARTS + 1))
    assert took < 0.9 and made["medium"].most_running == PARTS  # 1.7 s one after the other
    assert total(usage) == spent(made)
    told = usage.model_extra["stepdown"]
    assert told["delegation"] == "done" and len(told["calls"]) == 1 + PARTS
    assert sum(call["prompt_tokens"] for call in told["calls"]) == told["total"]["prompt_tokens"]
    assert told["cost_usd"] == pytest.approx(sum(call["cost_usd"] for call in told["calls"]))


@pytest.mark.slow
def test_no_more_run_at_once_than_allowed():
    made = tiers()
    with served(made, max_in_flight=3) as url:
        ask(url)
    assert made["medium"].most_running == 3


def messages_of(tier) -> list:
    return [body["messages"] for body in tier.bodies if not is_plan(body)]


@pytest.mark.parametrize(
    "plan",
    [DIRECT, "prose", '{"plan": [', '{"plan": [{"each": "c9"}]}', '{"plan": [{"prompt": "x", "depends_on": ["t1"]}]}', "[]"],
)
@pytest.mark.parametrize("stream", [False, True])
def test_whatever_the_plan_the_request_is_answered(plan, stream):
    made = tiers(plan=plan)
    with served(made) as url:
        text, usage = ask(url, stream)
    assert text == "plain answer"
    assert messages_of(made["large"]) == [CHAT["messages"]]  # as it was sent
    assert total(usage) == spent(made)
    assert len(made["large"].bodies) <= 3


def test_a_part_that_fails_goes_up_and_all_is_counted():
    def worker(body):
        return Said(error=TierFailed("medium", "broken")) if "number 3" in asked(body) else Said("fine", wait_s=0.05)

    made = tiers(worker=worker, final=Said("large did it"))
    with served(made) as url:
        text, usage = ask(url)
    assert "3. large did it" in text and text.count("fine") == PARTS - 1
    outcomes = [call["outcome"] for call in usage.model_extra["stepdown"]["calls"]]
    assert all(outcomes) and len(made["medium"].bodies) == PARTS + 1  # once again at the same tier, then up


def test_with_every_worker_down_the_answer_is_the_plain_one():
    made = tiers(worker=lambda body: down("medium"))
    plain = made["large"].script
    made["large"].script = lambda body: plain(body) if is_plan(body) or "Do each" in asked(body) else down("large")
    with served(made) as url:
        assert ask(url)[0] == "plain answer"


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_plan_and_workers_within_a_second(stream):
    made = tiers(worker=lambda body: Said("slow", wait_s=30))
    with served(made) as url:
        with pytest.raises(httpx.TimeoutException):
            httpx.post(f"{url}/chat/completions", json={**CHAT, "stream": stream}, timeout=0.5)
        until = time.monotonic() + 1.0
        while made["medium"].running and time.monotonic() < until:
            time.sleep(0.02)
        assert made["medium"].running == 0 and made["medium"].given_up == PARTS


@pytest.mark.slow
def test_the_deadline_is_kept():
    made = tiers(worker=lambda body: Said("late", wait_s=30))
    with served(made, deadline_s=2.0) as url:
        began = time.monotonic()
        text, _ = ask(url)
        assert time.monotonic() - began < 2.1 and text == "plain answer"


@pytest.mark.slow
def test_a_json_schema_is_the_final_calls_alone():
    schema = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}}
    made = tiers(final=Said('{"all": "merged"}'))
    with served(made) as url:
        text, _ = ask(url, response_format=schema, messages=[{"role": "user", "content": LONG}])
    assert json.loads(text) == {"all": "merged"}
    assert [b["response_format"]["json_schema"]["name"] for b in made["large"].bodies] == ["plan", "answer"]
    assert all("response_format" not in body for body in made["medium"].bodies)


@pytest.mark.parametrize("more", [{"n": 2}, {"logprobs": True}, {"tools": [{"type": "function", "function": {"name": "f"}}]}])
def test_what_cannot_be_delegated_is_asked_directly(more):
    made = tiers()
    with served(made) as url:
        text, _ = ask(url, **more)
    assert text == "plain answer" and len(made["large"].bodies) == 1 and not made["medium"].bodies


@pytest.mark.slow
def test_switched_off_the_large_tier_gets_the_plain_request():
    made = tiers()
    with served(made, mode="off") as url:
        ask(url)
    assert messages_of(made["large"]) == [CHAT["messages"]] and len(made["large"].bodies) == 1


def test_many_requests_at_once_keep_their_books_apart():
    made = tiers(worker=lambda body: Said("fine", wait_s=0.02))

    async def all_of(url):
        async with openai.AsyncOpenAI(base_url=url, api_key="x", max_retries=0) as many:
            return await asyncio.gather(*(many.chat.completions.create(**CHAT) for _ in range(16)))

    with served(made) as url:
        answers = asyncio.run(all_of(url))
    usages = [answer.usage for answer in answers]
    assert tuple(map(sum, zip(*map(total, usages), strict=True))) == spent(made)
    assert all(len(u.model_extra["stepdown"]["calls"]) == 1 + PARTS for u in usages)


def test_a_no_of_the_gate_is_told():
    made = tiers()
    with served(made, min_saving=0.99) as url:
        raw = client(url).chat.completions.with_raw_response.create(**CHAT)
        told = httpx.post(f"{url}/decision", json=CHAT).json()["delegation"]
    assert raw.headers["x-stepdown-delegation"] == "not_worth_it" == told["delegation"]
    assert told["cost_delegated_estimate_usd"] > 0.01 * told["cost_direct_estimate_usd"] > 0


@pytest.mark.slow
def test_a_clients_limits_tighten_the_delegation_and_reach_no_tier():
    made = tiers(plan='{"plan": [' + ", ".join('{"prompt": "do it"}' for _ in range(PARTS)) + "]}")
    with served(made) as url:
        _, usage = ask(url, extra_body={"stepdown": {"max_subtasks": 2}})
        assert usage.model_extra["stepdown"]["delegation"] == "loop_detected"  # twice the same, with too many subtasks
        with pytest.raises(openai.RateLimitError, match="USD of the request's limit"):
            ask(url, extra_body={"stepdown": {"max_cost_usd": 1e-9}})
        with pytest.raises(openai.BadRequestError, match="stepdown.max_cost"):
            ask(url, extra_body={"stepdown": {"max_cost": 1}})
    assert not any("stepdown" in body for tier in made.values() for body in tier.bodies)


@pytest.mark.slow
def test_a_clients_deadline_ends_a_plain_answer():
    made = tiers(final=Said("too late", wait_s=30))
    with served(made, mode="off") as url, pytest.raises(openai.APIStatusError) as raised:
        ask(url, extra_body={"stepdown": {"deadline_s": 0.2}})
    assert raised.value.status_code == 504 and made["large"].running == 0 and made["large"].given_up == 1
