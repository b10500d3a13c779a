"""Before it is ready a replica sees whether its tiers think as their settings say."""

import asyncio

import pytest

from deployments.replicas.thought_checks import BUDGET, Heard, heard, look, question
from router.config import Config
from router.errors import BadConfig

PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
OFF = {"chat_template_kwargs": {"enable_thinking": False}}
ON = {"chat_template_kwargs": {"enable_thinking": True}}
HOST = {"name": "small", "engine": "vllm", "source": "x/y", "context": 99, "price": PRICE, "reasoning": "qwen3", "body": OFF}
THINK = {"name": "think", "on": "small", "body": ON}
RIGHT = {"small": Heard((1, 2, 3), "", "5"), "think": Heard((1, 2), "let me", "5")}


def tiers(*rungs, **host):
    return Config.model_validate({"tiers": [{**HOST, **host}, *rungs]}).tiers


def told(found, those=None):
    """What is warned of, where the engine answers these, by tier: its switch tells which asks."""
    those = those or tiers(THINK)
    asked = []

    async def answer(body):
        asked.append(body)
        return found[those[len(asked) - 1].name]

    return asyncio.run(look(those, answer)), asked


def test_a_ladder_that_is_as_it_says_is_told_nothing():
    lines, asked = told(RIGHT)
    assert lines == [] and [body["model"] for body in asked] == ["small", "small"]
    assert [body["chat_template_kwargs"] for body in asked] == [each["chat_template_kwargs"] for each in (OFF, ON)]
    assert [body.get("thinking_token_budget") for body in asked] == [None, BUDGET]


def test_a_parser_that_takes_answers_for_thoughts_stops_the_start():
    with pytest.raises(BadConfig) as stopped:
        told(RIGHT | {"small": Heard((1,), "The sum is 5", "")}, tiers(THINK, reasoning="deepseek_r1"))
    assert str(stopped.value).startswith(
        "tiers.small.reasoning.parser: deepseek_r1 takes the answer of small, which does not think, for a thought ('The sum"
    )


@pytest.mark.parametrize("text", ["<think>let me", "let me</think>5"])
def test_a_parser_that_leaves_thoughts_in_answers_stops_the_start(text):
    with pytest.raises(BadConfig, match="leaves the thought of think in its answer"):
        told(RIGHT | {"think": Heard((1, 2), "", text)})


def test_a_switch_that_changes_nothing_is_told():
    (line,), _ = told(RIGHT | {"think": Heard((1, 2, 3), "let me", "5")})
    assert line.startswith("tiers.think.body: the chat template makes the same prompt for small ({") and "its switch" in line


def test_rungs_that_differ_in_another_way_may_have_the_same_prompt():
    short = {"name": "think", "on": "small", "body": {"top_k": 4}}
    lines, _ = told({"small": Heard((1,), "", "5"), "think": Heard((1,), "", "5")}, tiers(short))
    assert lines == []


def test_an_engine_that_does_not_answer_or_tell_its_prompt_proves_nothing():
    assert told({"small": None, "think": None})[0] == []
    assert told({"small": Heard((), "", "5"), "think": Heard((), "x", "5")})[0] == []


def test_without_a_parser_thoughts_may_stand_in_the_text():
    those = tiers(THINK, reasoning={})
    assert told({"small": Heard((1,), "", "5"), "think": Heard((2,), "", "let me</think>5")}, those)[0] == []
    assert "thinking_token_budget" not in question(those[1], "small")


def test_tiers_of_which_nothing_is_said_are_not_asked():
    plain = Config.model_validate({"tiers": [{name: value for name, value in HOST.items() if name not in ("reasoning", "body")}]})
    assert told({}, plain.tiers) == ([], [])


def test_both_names_of_a_thought_are_read():
    choice = {"message": {"content": None, "reasoning_content": "hm"}}
    assert heard({"choices": [choice], "prompt_token_ids": [7, 8]}) == Heard((7, 8), "hm", "")
    assert heard({"choices": [{"message": {"content": "5", "reasoning": "a"}}]}) == Heard((), "a", "5")
