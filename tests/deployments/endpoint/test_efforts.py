"""Efforts at the endpoint: a client's is a ceiling under `auto`, headers and cards say what tiers have."""

import pytest
from inprocess import app_of
from starlette.testclient import TestClient

from deployments.tiers.counting.token_counters import counters
from router.config import Config, load_config
from router.engine import Router

KEY = {"authorization": "Bearer right"}
PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
CHAT = {"model": "auto", "messages": [{"role": "user", "content": "one two"}]}


def echo(name, **more):
    return {"name": name, "engine": "echo", "context": 4000, "price": PRICE, **more}


OFF = {"chat_template_kwargs": {"enable_thinking": False}}
ON = {"chat_template_kwargs": {"enable_thinking": True}}
LABELLED = (echo("off", effort="none", body=OFF), echo("long", effort="high", body=ON))


def client(*tiers, **sections):
    config = Config.model_validate({"tiers": list(tiers), **sections})
    return TestClient(app_of(Router(config, None, counters(config))), headers=KEY, raise_server_exceptions=False)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "wish, tier, effort",
    [({}, "long", "high"), ({"reasoning_effort": "low"}, "off", "none"), ({"model": "long"}, "long", "high")],
)
def test_a_header_says_the_effort_of_the_tier_that_answers(wish, tier, effort, stream):
    answer = client(*LABELLED).post("/v1/chat/completions", json={**CHAT, "stream": stream, **wish})
    assert answer.status_code == 200
    assert (answer.headers["x-stepdown-tier"], answer.headers["x-stepdown-effort"]) == (tier, effort)


def test_a_tier_that_answers_instead_says_its_own():
    made = client(echo("off", effort="none"), echo("plain"), echo("long", effort="high", fail="error"))
    answer = made.post("/v1/chat/completions", json=CHAT)
    assert (answer.headers["x-stepdown-tier"], answer.headers["x-stepdown-effort"]) == ("plain", "unknown")


def test_a_ladder_without_labels_has_no_such_header():
    assert "x-stepdown-effort" not in client(echo("a"), echo("b")).post("/v1/chat/completions", json=CHAT).headers


def test_a_decision_says_who_was_barred_and_why():
    told = client(*LABELLED).post("/v1/decision", json={**CHAT, "reasoning_effort": "none"}).json()
    assert told["tier"] == "off" and told["excluded"]["long"].startswith("thinks more (effort high)")


def test_other_protocols_set_the_ceiling_too():
    made = client(*LABELLED)
    body = {"model": "auto", "input": "one two", "reasoning": {"effort": "none"}, "store": False}
    assert made.post("/v1/responses", json=body).headers["x-stepdown-tier"] == "off"
    body = {"model": "auto", "max_tokens": 9, "messages": CHAT["messages"], "thinking": {"type": "disabled"}}
    assert made.post("/v1/messages", json=body).headers["x-stepdown-tier"] == "off"


def test_cards_say_whose_replicas_a_rung_is_on_and_whether_it_thinks():
    made = client(*LABELLED, echo("plain"))
    cards = {card["id"]: card for card in made.get("/v1/models").json()["data"]}
    shown = {name: {key: cards[name].get(key) for key in ("effort", "thinks")} for name in ("off", "long", "plain", "auto")}
    assert shown == {
        "off": {"effort": "none", "thinks": False},
        "long": {"effort": "high", "thinks": True},
        "plain": {"effort": None, "thinks": None},
        "auto": {"effort": None, "thinks": None},
    }
    assert made.get("/v1/models/off").json() == cards["off"]


def test_a_thinking_tier_may_stand_where_its_thoughts_make_it_belong(tmp_path):
    """Its tokens cost what its sibling's cost, so by price it would stand below the medium tier."""
    text = """tiers:
  - {name: small, engine: vllm, source: x/y, context: 9000, reasoning: qwen3, effort: none, price: &one {PRICE},
     body: {chat_template_kwargs: {enable_thinking: false}}}
  - {name: medium, engine: vllm, source: x/z, context: 9000, price: {usd_per_1m_input: 2, usd_per_1m_output: 2}}
  - {name: THIRD}
"""
    think = "small-think, on: small, effort: low, thought: 2000, body: {chat_template_kwargs: {enable_thinking: true}}"
    file = tmp_path / "ladder.yaml"
    text = text.replace("{PRICE}", "{usd_per_1m_input: 1, usd_per_1m_output: 1}")
    file.write_text(text.replace("THIRD", think))
    assert load_config(file).names == ["small", "medium", "small-think"]
    file.write_text(text.replace("THIRD", "small-sql, on: small, lora: adapters/sql"))
    with pytest.raises(Exception, match="list them cheapest first"):
        load_config(file)
