"""What a tier's settings promise, and which contradict each other."""

import pytest

from router.config import Config
from router.errors import BadConfig

PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
TIER = {"name": "it", "engine": "vllm", "source": "a/b", "context": 8_000, "price": PRICE}


def read(**more):
    return Config.model_validate({"tiers": [{**TIER, **more}]}).tiers[0]


@pytest.mark.parametrize("window", [8_000, 9_000, -1, "auto", None])
def test_an_engines_window_may_be_wider_than_the_tiers(window):
    assert read(engine_kwargs={"max_model_len": window}).context == 8_000


def test_a_window_that_the_engine_will_not_have_is_no_promise_to_keep():
    with pytest.raises(ValueError, match="context is 8000, and engine_kwargs.max_model_len 7999, so longer requests would fail"):
        read(engine_kwargs={"max_model_len": 7_999})


def test_abilities_are_found_out_by_default():
    tier = read()
    assert (tier.tools, tier.json_mode, tier.images) == ("auto", "auto", "auto")
    with pytest.raises(ValueError, match="tools"):
        read(tools="maybe")


@pytest.mark.parametrize(
    "more, by_thought",
    [
        ({}, False),
        ({"reasoning": "qwen3"}, False),
        ({"reasoning": "qwen3", "thought": 90}, True),
        ({"reasoning": "qwen3", "effort": "high"}, True),
        ({"reasoning": {"parser": "qwen3", "default": "off"}, "effort": "high"}, False),
        ({"body": {"reasoning_effort": "low"}}, True),
        ({"body": {"reasoning_effort": "none"}, "effort": "none"}, False),
        ({"effort": "high"}, False),
    ],
)
def test_who_states_that_it_thinks_costs_by_its_thoughts(more, by_thought):
    assert read(**more).costs_by_thought is by_thought


def test_a_parser_may_be_named_by_itself():
    assert read(reasoning="qwen3") == read(reasoning={"parser": "qwen3"})


def test_errors_of_the_file_say_where(tmp_path):
    from router.config import load_config

    file = tmp_path / "ladder.yaml"
    price = "{usd_per_1m_input: 1, usd_per_1m_output: 1}"
    file.write_text(f"tiers: [{{name: it, engine: vllm, source: a/b, context: 9, price: {price}, gpu: 2}}]")
    with pytest.raises(BadConfig, match="tiers.0.gpu"):
        load_config(file)
