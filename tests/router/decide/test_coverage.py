"""Which answers a valid certificate covers: those that came about as the rows were played that it was made of, and no others."""

import json

import pytest

from router.config import Escalation, load_config
from router.decide.coverage import of_answer
from router.engine import Router, load_artefact
from router.request.wire import parse
from router.types import Decision

LADDER = ("small", "medium", "large")
ASK = {"model": "auto", "temperature": 0, "messages": [{"role": "user", "content": "What is 7 plus 5?"}]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def decision(**changes) -> Decision:
    made = {"tier": "small", "reason": "worth its cost", "target": "quality", "certificate": "valid", "first": ("small",)}
    return Decision(**{**made, **changes})


@pytest.mark.parametrize(
    "changes, flow, tiers, departed, state",
    [
        ({}, "cascade", ["small"], False, "valid"),
        ({}, "cascade", ["small", "large"], False, "valid"),
        ({"first": ("small", "medium")}, "cascade", ["small", "medium"], False, "valid"),
        ({"tier": "large", "first": ("large",)}, "direct", ["large"], False, "valid"),
        ({}, "cascade", ["small"], True, "uncovered"),  # a tier failed, a refusal, a limit
        ({"excluded": {"large": "not permitted to this key"}}, "cascade", ["small"], False, "uncovered"),
        ({"excluded": {"medium": "no replica answers"}}, "cascade", ["small"], False, "uncovered"),
        ({"reason": "moved off a queue", "tier": "medium", "first": ("medium",)}, "cascade", ["medium"], False, "uncovered"),
        ({"reason": "kept for its cache", "tier": "medium"}, "cascade", ["medium"], False, "uncovered"),
        ({"reason": "kept in a tool loop", "tier": "large"}, "direct", ["large"], False, "uncovered"),
        ({}, "direct", ["small"], False, "uncovered"),
        ({"tier": "large", "first": ("large",)}, "direct", ["large", "medium"], False, "uncovered"),  # large was down
        ({}, "race", ["small"], False, "uncovered"),
        ({}, "delegation", ["large", "small"], False, "uncovered"),
        ({}, "tools", ["large"], False, "uncovered"),
        ({"certificate": "retired"}, "cascade", ["small"], False, "retired"),
        ({"certificate": ""}, "direct", ["small"], False, ""),
    ],
)
def test_an_answer_is_covered_only_as_it_was_certified(changes, flow, tiers, departed, state):
    assert of_answer(decision(**changes), LADDER, flow, tiers, departed) == state


@pytest.fixture(scope="module")
def router() -> Router:
    config = load_config("pocket")
    config = config.model_copy(update={"escalation": Escalation(mode="buffer")})
    return Router(config, load_artefact(config), dict.fromkeys(config.names, len))


@pytest.mark.parametrize(
    "more, state",
    [
        ({}, "valid"),
        ({"max_tokens": 100, "user": "u", "seed": 3, "top_p": 0.5, "logprobs": True}, "valid"),
        ({"n": 1, "tools": [], "stop": None, "response_format": {"type": "text"}, "presence_penalty": 0}, "valid"),
        ({"tools": [TOOL]}, "uncovered"),
        ({"tools": [{"type": "stepdown:escalate"}]}, "uncovered"),
        ({"functions": [{"name": "f"}]}, "uncovered"),
        ({"response_format": {"type": "json_object"}}, "uncovered"),
        ({"stop": ["\n"]}, "uncovered"),
        ({"logit_bias": {"5": -100}}, "uncovered"),
        ({"presence_penalty": 1.5}, "uncovered"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "uncovered"),
        ({"structured_outputs": {"choice": ["a"]}}, "uncovered"),
        ({"reasoning_effort": "high"}, "uncovered"),
        ({"skip_special_tokens": False}, "uncovered"),
        ({"a_field_of_tomorrow": 1}, "uncovered"),
        ({"temperature": 0.7}, "uncovered"),
    ],
)
def test_a_request_that_asks_for_more_than_the_rows_did_is_not_covered(router, more, state):
    assert router.decide(parse("chat/completions", json.dumps(ASK | more).encode())).certificate == state


@pytest.mark.parametrize("name", LADDER)
def test_a_ladder_without_one_of_its_tiers_is_another_ladder(router, name):
    asked = parse("chat/completions", json.dumps(ASK).encode())
    assert router.decide(asked, barred={name: "not permitted to this key"}).certificate == "uncovered"


def test_a_ladder_of_one_tier_is_another_ladder_too(router):
    asked = parse("chat/completions", json.dumps(ASK).encode())
    assert router.decide(asked, barred=dict.fromkeys(LADDER[1:], "no replica answers")).certificate == "uncovered"


def test_a_tier_whose_window_is_too_small_makes_another_ladder():
    config = load_config("pocket")
    tiers = [t.model_copy(update={"context": 20 if t.name == "small" else 4096}) for t in config.tiers]
    config = config.model_copy(update={"tiers": tiers, "escalation": Escalation(mode="buffer")})
    wide = Router(config, load_artefact(config), dict.fromkeys(config.names, len))
    asked = parse("chat/completions", json.dumps(ASK | {"max_tokens": 1000}).encode())
    decided = wide.decide(asked)
    assert "small" in decided.excluded and decided.certificate == "uncovered"
