"""The ladder `smol`: a real language model, as two rungs on one engine, used by the OpenAI client as it is."""

import json
import subprocess
import time

import httpx
import openai
import pytest
import yaml

from classifiers.pretrained import language
from deployments.serve.background import served
from deployments.serve.shipped_models import make_missing
from router.config import SHIPPED, load_config

pytestmark = [pytest.mark.ladder, pytest.mark.skipif(not language.available(), reason="needs the extra `surprisal`")]
TURNS = (
    "Hello! Who are you?",
    "What is the capital of France?",
    "Name a fruit that is yellow.",
    "What is water made of?",
    "Say hello in Spanish.",
    "What color is the sky?",
    "How many legs has a cat?",
    "Name a planet.",
    "What do bees make?",
    "Goodbye!",
)
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}},
    "required": ["city"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """(url up to /v1, key)"""
    folder = tmp_path_factory.mktemp("smol")
    make_missing(load_config("smol"))
    given = yaml.safe_load(
        (SHIPPED / "smol.yaml").read_text().replace("../smol", str(SHIPPED.parent / "smol")).replace("on:", '"on":')
    )
    given["ledger"] = {"url": f"sqlite:///{folder}/ledger.db", "journal_s": 0}
    file = folder / "smol.yaml"
    file.write_text(yaml.safe_dump(given))
    with served(str(file), timeout_s=900) as found:
        yield found


@pytest.fixture(scope="module")
def sdk(server):
    return openai.OpenAI(base_url=server[0], api_key=server[1], max_retries=0, timeout=300)


def got(server, path: str):
    """path: from the root of the server."""
    url = server[0].removesuffix("/v1")
    return httpx.get(f"{url}/{path}", headers={"authorization": f"Bearer {server[1]}"}, timeout=60).raise_for_status().json()


def row(server, trace_id: str):
    """A request's row, as soon as it is in the ledger."""
    for _ in range(100):
        try:
            return got(server, f"costs/traces/{trace_id}.json")
        except httpx.HTTPStatusError:
            time.sleep(0.1)
    raise AssertionError(f"{trace_id} is not in the ledger")


def test_ten_turns_add_up_with_the_ledger(server, sdk):
    """Each turn's prompt has all earlier answers; every figure of its usage is that of the ledger."""
    chat: list[dict[str, str]] = []
    before = 0
    for number, said in enumerate(TURNS):
        chat.append({"role": "user", "content": said})
        model = ("quick", "think")[number % 2]
        raw = sdk.chat.completions.with_raw_response.create(model=model, messages=chat, max_tokens=72, temperature=0)
        answer = raw.parse()
        message, usage = answer.choices[0].message, answer.usage
        thought = getattr(message, "reasoning", None)
        assert answer.model == model and (message.content or thought) and bool(thought) == (model == "think")
        assert "<think>" not in (message.content or "") and "</think>" not in (message.content or "")
        assert usage.prompt_tokens > before and 0 < usage.completion_tokens <= 72
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
        before = usage.prompt_tokens
        (call,) = row(server, raw.headers["x-stepdown-trace-id"])["calls"]
        assert (call["prompt_tokens"], call["completion_tokens"]) == (usage.prompt_tokens, usage.completion_tokens)
        assert call["tier"] == model
        chat.append({"role": "assistant", "content": message.content or ""})


def test_the_client_asks_for_no_thought(sdk):
    answer = sdk.chat.completions.create(
        model="auto", messages=[{"role": "user", "content": "Hi"}], max_tokens=8, reasoning_effort="none"
    )
    assert answer.model == "quick"


def test_tools_are_refused_in_the_protocols_way(sdk):
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.chat.completions.create(model="quick", messages=[{"role": "user", "content": "Weather?"}], tools=[TOOL])
    assert "tool" in refused.value.message


@pytest.mark.parametrize("model", ["quick", "think"])
def test_a_json_schema_is_kept(sdk, model):
    answer = sdk.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "The capital of France, as JSON with the key city."}],
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}},
        max_tokens=100,
    )
    assert set(json.loads(answer.choices[0].message.content)) == {"city"}


def test_a_stream_tells_thought_from_answer(server, sdk):
    stream = sdk.chat.completions.create(
        model="think",
        messages=[{"role": "user", "content": "Tell me a short story about a fox."}],
        max_tokens=100,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    order, text, usage, trace = [], "", None, stream.response.headers["x-stepdown-trace-id"]
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            kinds = [name for name in ("reasoning", "content") if getattr(choice.delta, name, None)]
            order += kinds
            text += choice.delta.content or ""
    assert order == sorted(order, reverse=True) and set(order) == {"reasoning", "content"}  # the thought comes first
    assert "think>" not in text
    (call,) = row(server, trace)["calls"]
    assert (call["prompt_tokens"], call["completion_tokens"]) == (usage.prompt_tokens, usage.completion_tokens)
    assert usage.completion_tokens_details.reasoning_tokens > 0


def test_one_engine_answers_for_both(server):
    cards = {card["id"]: card for card in got(server, "v1/models")["data"]}
    assert {"quick", "think"} <= set(cards)
    engines = subprocess.run(["pgrep", "-fc", "VLLM::EngineCore"], capture_output=True, text=True).stdout.strip()
    assert engines == "1"
