"""The real thing: three vLLM replicas behind one endpoint, routed by the shipped classifier, asked by openai's client."""

import asyncio
import json

import httpx
import openai
import pytest

from deployments.cli.demo import ask_all
from deployments.pocket.tasks import fresh
from router.config import load_config

pytestmark = pytest.mark.ladder
TIERS = ["small", "medium", "large"]
PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": PARAMETERS}}


@pytest.fixture(scope="module")
def client(ladder):
    url, key = ladder
    return openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=120)


def ask(client, model, content="What is 2 plus 3?", **more):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]
    return client.chat.completions.create(model=model, messages=messages, **{"temperature": 0, **more})


def test_the_large_tier_can_add(client):
    answer = ask(client, "large", "What is 238 plus 467?")
    assert (answer.model, answer.choices[0].message.content) == ("large", "705")


@pytest.mark.parametrize("model", ["auto", "auto:cheap", "auto:0.5", *TIERS])
def test_streams_real_tokens_ending_in_usage(client, model):
    chunks = list(ask(client, model, "Spell the word banoki.", stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    whole = ask(client, model, "Spell the word banoki.")  # `small` may misspell it; what streams is what it says whole
    assert text == whole.choices[0].message.content and text.startswith("b-")
    assert len(chunks) > 5
    assert chunks[-1].usage.completion_tokens > 5
    assert all(c.model in TIERS for c in chunks)


@pytest.mark.parametrize("model", ["auto", *TIERS])
def test_what_we_do_not_read_is_passed_on(client, model):
    answer = ask(client, model, logprobs=True, top_logprobs=2, n=2, temperature=1, seed=1, stop=["zz"], extra_body={"top_k": 5})
    assert len(answer.choices) == 2
    assert len(answer.choices[0].logprobs.content[0].top_logprobs) == 2


def test_a_json_schema_is_kept(client):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    said = ask(client, "auto", response_format=wanted, max_tokens=60).choices[0].message.content
    assert said.startswith("{")


def test_tools_reach_the_tier(client):
    assert ask(client, "auto", tools=[TOOL], tool_choice="none", max_tokens=20).choices


def test_plain_completions_work(client):
    assert client.completions.create(model="large", prompt="What is", max_tokens=4).model == "large"


def test_a_field_that_vllm_refuses_is_a_400(client):
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "x"}], temperature="hot")


def test_a_prompt_too_long_for_every_tier(client):
    with pytest.raises(openai.BadRequestError) as raised:
        ask(client, "auto", "zq " * 800)
    assert raised.value.code == "context_length_exceeded"
    assert "512" in raised.value.message


def test_the_decision_can_be_had_without_the_answer(ladder):
    url, key = ladder
    body = {"model": "auto", "messages": [{"role": "user", "content": "What is 238 plus 467?"}]}
    told = httpx.post(f"{url}/decision", json=body, headers={"authorization": f"Bearer {key}"}).json()
    assert list(told["p"]) == TIERS and all(0 <= p <= 1 for p in told["p"].values())
    assert told["tier"] in TIERS and told["reason"]


def test_routing_keeps_the_quality_and_saves_the_cost(ladder):
    """The figures of the README, on fewer prompts, so the bounds here are wider."""
    url, key = ladder
    tasks, config = fresh("single", 200, seed=77), load_config("pocket")
    auto, large = (asyncio.run(ask_all(url, key, way, tasks, config)) for way in ("auto", "large"))
    assert large.right >= 0.93
    assert auto.right >= 0.94 * large.right
    assert auto.usd <= 0.60 * large.usd
    assert all(auto.tiers.values()), json.dumps(auto.tiers)
