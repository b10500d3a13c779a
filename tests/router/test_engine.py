"""From a request to a decision, with a classifier whose chances we choose."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifiers import Rule
from router.config import Config
from router.engine import Router
from router.errors import BadRequest, ContextTooLong, NoTierFits, RequestFailed, UnknownModel
from router.request.wire import forwarded, needs, parse

NAMES = ["small", "medium", "large"]
TOOLS = [{"type": "function", "function": {"name": "f"}}]


class Fixed:
    """An artefact that always gives the same chances; long prompts look strange to it and cost more."""

    slow = False
    posterior, cascades, manifest = None, {}, {}
    rules = {"balanced": Rule("chance", 0.9), "cheap": Rule("utility", 1.0), "quality": Rule("tier", 1)}

    def __init__(self, *p: float) -> None:
        self.p = np.array(p)

    def guess_one(self, text: str):
        length = 1.0 if len(text) <= 20 else 4.0
        return self.p, np.array([0.05, 0.25, 1.0]) * length, 0.125 if length == 1.0 else 1.0


def router(*p: float, target="balanced", **changes) -> Router:
    price = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
    tiers = [
        {"name": n, "engine": "echo", "context": 100 * (i + 1), "price": price, **changes.get(n, {})} for i, n in enumerate(NAMES)
    ]
    config = Config.model_validate({"tiers": tiers, "routing": {"target": target}})
    return Router(config, Fixed(*p) if p else None, {n: len for n in NAMES})


def decide(made: Router, model="auto", content="hello", **more):
    body = {"model": model, "messages": [{"role": "user", "content": content}], **more}
    return made.decide(parse("chat/completions", json.dumps(body).encode()))


@pytest.mark.parametrize(
    "p, model, tier, reason",
    [
        ((0.95, 0.99, 1.0), "auto", "small", "good enough"),
        ((0.50, 0.92, 1.0), "auto", "medium", "good enough"),
        ((0.50, 0.60, 0.7), "auto", "large", "best we have"),
        ((0.50, 0.60, 0.7), "auto:0.6", "medium", "good enough"),
        ((0.50, 0.60, 0.7), "auto:cheap", "small", "worth its cost"),
        ((0.10, 0.20, 1.3), "auto:cheap", "large", "worth its cost"),
        ((0.95, 0.99, 1.0), "auto:quality", "medium", "fixed"),
        ((0.95, 0.99, 1.0), "large", "large", "asked for"),
    ],
)
def test_takes_the_cheapest_that_should_do(p, model, tier, reason):
    decision = decide(router(*p), model)
    assert (decision.tier, decision.reason) == (tier, reason)


def test_only_what_the_classifier_will_decide_is_read_ahead():
    made, read = router(0.5, 0.6, 0.7), []
    made.artefact.read_ahead = read.append

    def ahead(model):
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
        made.read_ahead(parse("chat/completions", json.dumps(body).encode()))

    ahead("auto")
    ahead("large")
    assert read == ["hi"]
    with pytest.raises(UnknownModel):
        ahead("nobody")


def test_a_decision_shows_every_step():
    decision = decide(router(0.95, 0.99, 1.0, small={"tools": False}), tools=TOOLS)
    assert decision.excluded == {"small": "takes no tools"}
    assert decision.p == {"medium": 0.99, "large": 1.0}
    assert (decision.tier, decision.confidence, decision.target) == ("medium", 0.99, "balanced")


def test_what_is_paid_is_this_prompts_cost_and_not_the_mean():
    made = router(0.2, 0.9, 1.0)
    assert decide(made, "auto:cheap", "short").tier == "medium"  # 0.9 - 0.25 against 0.2 - 0.05
    assert decide(made, "auto:cheap", "x" * 40).tier == "small"  # four times that for little more


def test_a_decision_says_how_strange_the_prompt_is():
    assert decide(router(0.9, 0.9, 0.9)).unfamiliar == 0.125
    assert decide(router(0.9, 0.9, 0.9), content="x" * 40).unfamiliar == 1.0
    assert decide(router(0.9, 0.9, 0.9), "large").unfamiliar is None


def test_a_long_prompt_goes_past_the_tiers_it_does_not_fit():
    decision = decide(router(0.95, 0.99, 1.0), content="x" * 150)
    assert decision.tier == "medium" and "takes 100 tokens" in decision.excluded["small"]
    assert decide(router(0.95, 0.99, 1.0), content="x" * 250).reason == "only one fits"


def test_the_answer_asked_for_counts_too():
    assert decide(router(0.95, 0.99, 1.0), content="x" * 75, max_tokens=150).tier == "small"
    assert decide(router(0.95, 0.99, 1.0), content="x" * 80, max_tokens=150).tier == "medium"


@pytest.mark.parametrize("model", ["auto", "small"])
def test_too_long_for_all_names_both_numbers(model):
    with pytest.raises(ContextTooLong, match="(300|100) tokens.*999 tokens"):
        decide(router(0.9, 0.9, 0.9), model, "x" * 999)


def test_nobody_can_see_images():
    image = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    with pytest.raises(NoTierFits, match="takes no images"):
        decide(router(0.9, 0.9, 0.9), content=image)


@pytest.mark.parametrize("model", ["gpt-4", "auto:", "auto:1.5", "auto:nan", "auto:best", "AUTO"])
def test_unknown_models(model):
    with pytest.raises(UnknownModel, match="auto:0.97"):
        decide(router(0.9, 0.9, 0.9), model)


def test_without_a_router_auto_is_the_largest_that_fits():
    assert decide(router()).tier == "large"


@pytest.mark.parametrize(
    "body, param",
    [
        (b"", None),
        (b"nope", None),
        (b"[]", None),
        (b'{"model": 1}', "model"),
        (b'{"model": "a"}', "messages"),
        (b'{"model": "a", "messages": [1]}', "messages[0]"),
        (b'{"model": "a", "messages": [{"role": "x"}]}', "messages[0].role"),
        (b'{"model": "a", "messages": [{"role": "user", "content": 7}]}', "messages[0].content"),
        (b'{"model": "a", "messages": [{"role": "user", "content": "x"}], "max_tokens": -1}', "max_tokens"),
        (b"[" * 100_000, None),
    ],
)
def test_bad_bodies_name_the_field(body, param):
    with pytest.raises(BadRequest) as raised:
        parse("chat/completions", body)
    assert raised.value.param == param


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["model", "messages", "prompt", "stream", "tools", "response_format", "max_tokens", "stream_options"]


@pytest.mark.slow
@given(st.sampled_from(["chat/completions", "completions"]), st.dictionaries(st.sampled_from(FIELDS), anything))
def test_whatever_is_sent_is_decided_or_refused(path, fields):
    body = {"model": "auto", "prompt": "x", "messages": [{"role": "user", "content": "x"}], **fields}
    try:
        request = parse(path, json.dumps(body).encode())
        assert router(0.9, 0.9, 0.9).decide(request).tier in NAMES
        forwarded(request.body, "small")
    except RequestFailed as error:
        assert 400 <= error.status < 500


def test_what_we_do_not_read_is_passed_on_untouched():
    body = {"model": "auto", "messages": [], "guided_regex": "a+", "seed": 1, "stream": True}
    assert forwarded(body, "small") == {**body, "model": "small", "stream_options": {"include_usage": True}}
    assert forwarded({"model": "auto", "x": [1]}, "small") == {"model": "small", "x": [1]}


def test_needs():
    assert needs({"tools": TOOLS, "response_format": {"type": "json_schema"}}) == {"tools", "json"}
    assert needs({"response_format": {"type": "text"}}) == frozenset()
