"""Calls of ours have room for what their tier thinks first, or are kept from thinking where that can be had."""

from typing import Any

import pytest

from router.config import Config
from router.reasoning_settings import Reasoning
from router.request.thinking import written
from router.request.thought_room import QUIET, USUAL, quieter, room, thought_rooms, unthinking

QWEN = Reasoning(parser="qwen3", switch="chat_template")
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
JSON = {"response_format": {"type": "json_object"}}


@pytest.mark.parametrize(
    "settings, asked, tokens",
    [
        (None, {}, 0),
        (QWEN, {}, USUAL),
        (QWEN.model_copy(update={"budget": 64}), {}, 64),
        (QWEN.model_copy(update={"default": "off"}), {}, 0),
        (QWEN, {"reasoning_effort": "none"}, 0),
        (QWEN, JSON, USUAL),
        (Reasoning(), JSON, 0),  # without a parser the thought would be held to the form, so there is none
    ],
)
def test_room_for_a_thought(settings: Reasoning | None, asked: dict[str, Any], tokens: int) -> None:
    assert room(settings, {**CHAT, **asked}) == tokens


@pytest.mark.parametrize(
    "settings, sent",
    [
        (QWEN, {"chat_template_kwargs": {"enable_thinking": False}}),
        (Reasoning(switch="effort"), {"reasoning_effort": "none"}),
        (Reasoning(parser="deepseek_r1"), {"thinking_token_budget": 0}),
        (Reasoning(), {}),  # it cannot be kept from it
        (QWEN.model_copy(update={"default": "off"}), {"chat_template_kwargs": {"enable_thinking": False}}),
    ],
)
def test_a_tier_is_kept_from_thinking_in_its_own_way(settings: Reasoning, sent: dict[str, Any]) -> None:
    got = written({**CHAT, **unthinking(settings)}, "small", settings)
    assert {name: value for name, value in got.items() if name != "messages"} == sent


def ladder(*tiers: dict[str, Any]) -> Config:
    price = {"usd_per_1m_input": 1.0, "usd_per_1m_output": 1.0}
    return Config.model_validate({"tiers": [{"engine": "echo", "context": 9_000, "price": price, **tier} for tier in tiers]})


def test_whom_to_ask_where_a_thought_was_cut() -> None:
    config = ladder(
        {"name": "plain"},
        {"name": "switched", "reasoning": {"switch": "effort"}},
        {"name": "always", "reasoning": {}},
        {"name": "off", "reasoning": {"switch": "effort", "default": "off"}},
    )
    assert quieter(config.tiers, config.names) == {"switched": ("switched", QUIET)}
    assert quieter(config.tiers, ["plain"]) == {}
    assert thought_rooms(config.tiers) == {"switched": USUAL, "always": USUAL}
