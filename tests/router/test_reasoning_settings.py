"""The setting `reasoning` of a tier: what follows from it, and what is a mistake."""

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from router.config import Config, Server
from router.tier_settings import Reasoning, Tier

PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
ENGINES: dict[str, dict[str, Any]] = {
    "vllm": {"source": "org/model"},
    "remote": {"url": "https://there/v1", "model": "m"},
    "echo": {},
}


def tier(engine: str = "vllm", **more: Any) -> Tier:
    made = {"name": "it", "engine": engine, "context": 100, "price": PRICE, **ENGINES[engine], **more}
    return Config.model_validate({"tiers": [made]}).tiers[0]


@pytest.mark.parametrize("engine", ENGINES)
def test_without_it_nothing_is_known_of_its_thinking(engine: str) -> None:
    assert tier(engine).thinking is None and "reasoning" not in tier(engine).model_source.settings


def test_a_vllm_tier_without_a_parser_opens_the_thought_itself() -> None:
    assert tier(reasoning={}).thinking == Reasoning(opened=True)
    assert tier(reasoning={"opened": False}).thinking == Reasoning(opened=False)
    assert tier(reasoning={"parser": "qwen3"}).thinking == Reasoning(parser="qwen3", opened=False)


@pytest.mark.parametrize("engine", ["remote", "echo"])
def test_of_others_that_is_not_supposed(engine: str) -> None:
    thinking = tier(engine, reasoning={}).thinking
    assert thinking and not thinking.opened


def test_the_engines_own_option_is_a_parser_too() -> None:
    thinking = tier(reasoning={"budget": 9}, engine_kwargs={"reasoning_parser": "qwen3"}).thinking
    assert thinking and thinking.parser == "qwen3" and not thinking.opened


@pytest.mark.parametrize(
    "more, said",
    [
        ({"reasoning": {"parser": "a"}, "engine_kwargs": {"reasoning_parser": "b"}}, "reasoning.parser is a.*reasoning_parser b"),
        ({"reasoning": {"budget": 9}}, "reasoning.budget needs reasoning.parser"),
        ({"reasoning": {"budget": -1}}, "budget"),
        ({"reasoning": {"parser": ""}}, "parser"),
        ({"reasoning": {"switch": "maybe"}}, "switch"),
        ({"reasoning": {"effort": "low"}}, "effort"),
    ],
)
def test_mistakes(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        tier(**more)


def test_on_and_off_as_yaml_reads_them() -> None:
    for text, default in (("on", "on"), ("off", "off"), ("'off'", "off")):
        thinking = tier(reasoning=yaml.safe_load(f"{{default: {text}}}")).thinking
        assert thinking and thinking.default == default
    with pytest.raises(ValidationError):
        tier(reasoning={"default": "sometimes"})


def test_a_budget_is_fine_where_the_server_is_not_ours() -> None:
    assert tier("remote", reasoning={"budget": 9}).thinking == Reasoning(budget=9)


def test_the_servers_settings() -> None:
    assert (Server().reasoning, Server().reasoning_field) == ("pass", None)
    with pytest.raises(ValidationError):
        Server.model_validate({"reasoning_field": "thinking"})
