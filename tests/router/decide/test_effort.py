"""A client's effort is a ceiling on the tiers that `auto` may choose."""

import pytest

from router.config import Config
from router.decide import effort
from router.engine import Router
from router.request.thinking import ceiling
from router.types import Request

PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
LABELS = {"plain": None, "off": "none", "short": "low", "long": "high"}
CHAT = {"model": "auto", "messages": [{"role": "user", "content": "1"}]}


def ladder(labels=LABELS) -> Config:
    tiers = [{"name": name, "engine": "echo", "context": 4000, "price": PRICE, "effort": label} for name, label in labels.items()]
    return Config.model_validate({"tiers": tiers})


def decided(body, labels=LABELS, barred=()):
    config = ladder(labels)
    router = Router(config, None, dict.fromkeys(config.names, len))
    return router.decide(Request("chat/completions", {**CHAT, **body}), None, dict.fromkeys(barred, "not for this key"))


@pytest.mark.parametrize(
    "body, most",
    [
        ({}, ""),
        ({"reasoning_effort": "low"}, "low"),
        ({"reasoning_effort": "none"}, "none"),
        ({"reasoning_effort": "enormous"}, ""),
        ({"reasoning_effort": None}, ""),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "none"),
        ({"chat_template_kwargs": {"enable_thinking": True}}, ""),
        ({"chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": "low"}, "low"),
        ({"thinking_token_budget": 0}, "none"),
        ({"thinking_token_budget": 50}, ""),
    ],
)
def test_how_much_a_request_may_think(body, most):
    assert ceiling(body) == most


@pytest.mark.parametrize("most, barred", [("none", {"short", "long"}), ("low", {"long"}), ("medium", {"long"}), ("high", set())])
def test_tiers_that_think_more_are_barred_and_those_without_a_label_never(most, barred):
    assert set(effort.above(ladder().tiers, most)) == barred
    assert set(effort.above(ladder().tiers, "")) == set()


def test_where_all_think_more_those_that_think_least_stay():
    labels = {"a": "medium", "b": "high", "c": "medium"}
    assert set(effort.above(ladder(labels).tiers, "none")) == {"b"}
    assert set(effort.above(ladder().tiers, "none", out=("plain", "off"))) == {"long"}
    assert effort.above(ladder().tiers, "none", out=LABELS) == {}


def test_auto_keeps_below_the_ceiling():
    assert decided({}).tier == "long"
    assert decided({"reasoning_effort": "low"}).tier == "short"
    low = decided({"reasoning_effort": "none"})
    assert (low.tier, set(low.excluded), low.barred) == ("off", {"short", "long"}, {"short", "long"})
    assert low.excluded["long"] == "thinks more (effort high) than the request asks for (none)"


def test_the_ceiling_holds_among_the_tiers_that_a_key_may_use():
    found = decided({"reasoning_effort": "none"}, barred=("plain", "off"))
    assert found.tier == "short" and found.barred == {"plain", "off", "long"}


def test_a_tier_asked_for_by_name_is_not_barred():
    assert decided({"model": "long", "reasoning_effort": "none"}).tier == "long"
