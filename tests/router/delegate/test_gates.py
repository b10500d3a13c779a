"""Whether a request is worth a plan is decided before anything is asked, and the default is no."""

import pytest
from scripted import ladder, words

from router.config import Delegation
from router.delegate.gates import consider, ineligible
from router.delegate.memory import Memory
from router.limits.delegation_budget import Rung

RUNGS = ladder(0.1, 1.0)
SETTINGS = Delegation(mode="plan", min_input_tokens=100, offload_min_tokens=50)


def chat(text="hello", **more):
    return {"messages": [{"role": "user", "content": text}], **more}


def listing(n=6, size=100):
    return "Do each of these:\n" + "\n".join(f"{i}. number {i} " + "word " * size for i in range(1, n + 1))


def judged(body, settings=SETTINGS, rungs=RUNGS, memory=None, tier="small", splits=lambda text: True):
    return consider(body, rungs, settings, memory or Memory(), lambda text, difficulty: tier, splits)


@pytest.mark.parametrize(
    "more, why",
    [
        ({"n": 2}, "several answers"),
        ({"logprobs": True}, "log-probabilities"),
        ({"prompt_logprobs": 1}, "log-probabilities"),
        ({"echo": True}, "echo"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"functions": [{"name": "f"}]}, "tools"),
        ({"tool_choice": "required"}, "tool call"),
        ({"tool_choice": {"type": "function"}}, "tool call"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "last message"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "not text alone"),
        (
            {
                "n": 1,
                "tools": [],
                "logprobs": False,
                "tool_choice": "none",
                "response_format": {"type": "json_object"},
                "stop": "x",
                "seed": 1,
                "stream": True,
            },
            "",
        ),
    ],
)
def test_what_rules_delegation_out(more, why):
    found = ineligible({**chat(), **more})
    assert why in found and bool(why) == bool(found)


@pytest.mark.parametrize(
    "more, state, why",
    [
        ({}, None, ""),
        ({"settings": Delegation()}, "off", ""),
        ({"settings": SETTINGS.model_copy(update={"mode": "tool"})}, "off", ""),
        ({"body": chat(listing(), n=2)}, "ineligible", "several answers"),
        ({"splits": lambda text: False}, "ineligible", "independent parts"),
        ({"settings": Delegation(mode="plan")}, "not_worth_it", "4000 are the least"),
        ({"body": chat(listing(2))}, "not_worth_it", "2 parts, 3 are the least"),
        ({"tier": "large"}, "not_worth_it", "cost"),
        ({"rungs": ladder(0.95, 1.0)}, "not_worth_it", "cost"),
        ({"settings": SETTINGS.model_copy(update={"min_saving": 0.99})}, "not_worth_it", "cost"),
    ],
)
def test_every_gate_says_no_on_its_own(more, state, why):
    found = judged(**{"body": chat(listing()), **more})
    assert found.state == state and why in found.why
    assert found.as_json()["delegation"] == state


def test_both_estimates_are_told_where_cost_was_weighed():
    found = judged(chat(listing()))
    assert found.as_json()["cost_direct_estimate_usd"] == found.direct_usd > found.delegated_usd > 0
    assert "cost_direct_estimate_usd" not in judged(chat("short")).as_json()


def test_a_long_answer_makes_a_short_request_long_enough():
    task = "Write all of these chapters:\n1. The sea\n2. The land\n3. The sky\n4. The end"
    assert judged(chat(task)).state == "not_worth_it"
    assert judged(chat(task, max_tokens=4000)).state is None


def test_the_question_and_earlier_texts_are_looked_at_for_parts():
    seen = []
    body = {
        "messages": [
            {"role": "user", "content": listing()},
            {"role": "assistant", "content": "ok"},
            {"role": "user", "content": "now in French"},
        ]
    }
    judged(body, splits=lambda text: seen.append(text) or True)
    assert seen[0].startswith("Do each") and seen[0].endswith("now in French") and "ok" not in seen[0].split()


def test_experience_moves_the_estimate():
    memory, body = Memory(), chat(listing(6, 20))
    before = judged(body, memory=memory).delegated_usd
    for _ in range(50):
        memory.learn("numbered", {"plan_tokens": 900.0, "escalations": 1.0, "retries": 1.0, "merged": 1.0})
    after = judged(body, memory=memory)
    assert after.delegated_usd > 2 * before and after.state == "not_worth_it"


def test_tokens_are_counted_as_the_top_tier_counts_them():
    counted = []
    top = Rung("large", 9999, 1.0, 4.0, lambda text: counted.append(text) or 10 * words(text))
    rungs = [Rung("small", 9999, 0.1, 0.4, words), top]
    found = judged(chat(listing()), rungs=rungs)
    assert counted and found.chat.blocks["c1"].tokens == 10 * words(listing())
