"""No flow costs more than was set aside for it: every flow driven against tiers that write as much as they may."""

import json
import random
from dataclasses import replace

import pytest
from scripted import Said, drive
from scripted import words as count_words

from router.cascade.race import Race
from router.config import Config
from router.costs.prices import per_token
from router.engine import Router
from router.limits.reservation import ANSWER_TOKENS, LAST_TURNS, Size, max_cost, with_limit
from router.types import Accept, GoUp, Request

NAMES = ["small", "medium", "large"]
PARTS = "Do each of these:\n" + "\n".join(f"{i}. Summarise report number {i} in one line " + "word " * 30 for i in range(1, 9))


def words(text: str) -> int:
    return count_words(text)


words.exact = True


def router(context=4_000, hedge_after_s=None, **sections) -> Router:
    prices = {"small": 1.0, "medium": 4.0, "large": 20.0}
    tiers = [
        {
            "name": name,
            "engine": "echo",
            "context": context,
            "hedge_after_s": hedge_after_s,
            "price": {"usd_per_1m_input": usd, "usd_per_1m_output": 3 * usd},
        }
        for name, usd in prices.items()
    ]
    return Router(Config.model_validate({"tiers": tiers, **sections}), None, dict.fromkeys(NAMES, words))


def asks(content="hello", path="chat/completions", **more) -> Request:
    said = {"prompt": content} if path == "completions" else {"messages": [{"role": "user", "content": content}]}
    return Request(path, {"model": "auto", **said, **more})


def bound(made: Router, asked: Request, flow: str, **changes) -> tuple[Size, float]:
    return max_cost(made.config, made.count, asked, replace(made.decide(asked), **changes), flow)


def usd(made: Router, ledger) -> float:
    """Where slow calls are sent twice, each of them was."""
    price = {tier.name: per_token(tier) for tier in made.tiers}
    read = 2 if made.tiers[0].hedge_after_s else 1
    return sum(read * price[tier][0] * given + price[tier][1] * out for _, tier, given, out in ledger)


def long(call) -> Said:
    return Said("word " * (call.body.get("max_tokens") or 300))


# -- one call --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more, answer",
    [
        ({"max_tokens": 50}, 50),
        ({"max_completion_tokens": 60}, 60),
        ({"max_tokens": 50, "max_completion_tokens": 60}, 60),
        ({"max_tokens": 50, "n": 3}, 150),
        ({}, None),
        ({"max_tokens": 0}, None),
    ],
)
def test_the_answer_is_as_long_as_was_asked_for(more, answer):
    made, asked = router(), asks(**more)
    size, _ = max_cost(made.config, made.count, asked, made.decide(asks()), "direct")
    assert size.answer_tokens == answer


@pytest.mark.parametrize("more", [{}, {"n": 3}])
def test_a_limit_is_cut_to_the_room_that_is_left(more):
    made, asked = router(), asks(max_tokens=9_000_000, **more)
    decided = made.decide(asks())
    size, _ = max_cost(made.config, made.count, asked, decided, "direct")
    assert size.answer_tokens == (4_000 - size.input_tokens) * more.get("n", 1)


@pytest.mark.parametrize(
    "more, tokens",
    [({"max_tokens": 50}, 50), ({"max_tokens": 50, "n": 3}, 150), ({"max_tokens": 50, "best_of": 2}, 100), ({}, 4_000)],
)
def test_one_call_is_its_prompt_and_its_longest_answer(more, tokens):
    made, asked = router(), asks(**more)
    size, found = max_cost(made.config, made.count, asked, made.decide(asks()), "direct")
    assert found == pytest.approx((20 * size.input_tokens + 60 * tokens) / 1e6)


HEDGES = pytest.mark.parametrize("hedge_after_s", [None, 2.0, "p95"])


@HEDGES
def test_a_call_that_may_be_sent_twice_is_set_aside_with_its_prompt_twice(hedge_after_s):
    made, asked = router(hedge_after_s=hedge_after_s), asks(max_tokens=50)
    size, found = max_cost(made.config, made.count, asked, made.decide(asks()), "direct")
    assert found == pytest.approx((20 * size.input_tokens * (2 if hedge_after_s else 1) + 60 * 50) / 1e6)


@pytest.mark.parametrize(
    "prompt, least, answers",
    [("one two three", 3, 1), (["one two", "three"], 3, 2), ([5, 6, 7, 8], 4, 1), ([[5, 6], [7, 8, 9]], 5, 2)],
)
def test_every_prompt_of_a_completion_is_counted(prompt, least, answers):
    made = router()
    size, _ = max_cost(made.config, made.count, asks(prompt, "completions", max_tokens=10), made.decide(asks()), "direct")
    assert size.input_tokens >= least and size.answer_tokens == 10 * answers


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "assistant", "tool_calls": [{"id": "x", "function": {"name": "f", "arguments": "word " * 500}}]}],
        [{"role": "user", "content": "x", "name": "word " * 500}],
        [{"role": "user", "content": [{"type": "text", "text": "word " * 500}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}],
    ],
)
def test_whatever_a_template_may_write_is_counted(messages):
    made = router()
    size, _ = max_cost(
        made.config,
        made.count,
        Request("chat/completions", {"model": "auto", "messages": messages}),
        made.decide(asks()),
        "direct",
    )
    assert size.input_tokens >= 500


@pytest.mark.parametrize("field", ["tools", "functions"])
def test_tools_are_counted(field):
    made = router()
    tools = [{"type": "function", "function": {"name": "f", "description": "word " * 500}}]
    assert max_cost(made.config, made.count, asks(**{field: tools}), made.decide(asks()), "direct")[0].input_tokens >= 500


def test_where_tokens_can_only_be_guessed_bytes_are_counted():
    made = router()
    made.count = dict.fromkeys(NAMES, lambda text: 1)
    assert max_cost(made.config, made.count, asks("𝔘" * 100), made.decide(asks()), "direct")[0].input_tokens >= 400


LIMITS = pytest.mark.parametrize(
    "context, given, more, limit",
    [
        (100_000, 10, {}, ANSWER_TOKENS),
        (4_000, 10, {}, None),
        (100_000, 99_000, {}, None),
        (100_000, 10, {"max_tokens": 7}, 7),
        (100_000, 10, {"max_completion_tokens": 7}, None),
    ],
)


@LIMITS
def test_an_answer_without_a_limit_gets_one_where_the_window_is_larger(context, given, more, limit):
    made = router(context)
    asked = asks("word " * given, **more)
    sent = with_limit(asked.body, made.tiers[-1], words)
    assert sent.get("max_tokens") == limit
    decided = made.decide(asks())
    bounds = [max_cost(made.config, made.count, replace(asked, body=body), decided, "direct")[1] for body in (sent, asked.body)]
    assert (bounds[0] < bounds[1]) == (limit == ANSWER_TOKENS)


@pytest.mark.parametrize("more, limit", [({}, 16), ({"max_tokens": 7}, 7), ({"max_completion_tokens": 7}, 16)])
def test_a_completion_without_a_limit_gets_the_one_that_every_backend_has(more, limit):
    """`max_completion_tokens` is a chat's: a completion's backend overlooks it."""
    sent = with_limit(asks("word " * 10, "completions", **more).body, router(100_000).tiers[-1], words)
    assert sent["max_tokens"] == limit


# -- flows -----------------------------------------------------------------------------------------------------------------


class Whim:
    """A ladder of judgements that goes up as it likes."""

    def __init__(self, source: random.Random) -> None:
        self.source = source

    def next(self, answers):
        if self.source.random() < 0.2:
            return Accept(list(answers)[-1])
        return GoUp(tuple(self.source.sample(NAMES, self.source.randint(1, 2))), "low confidence")


@HEDGES
@pytest.mark.parametrize("seed", range(12))
def test_no_cascade_costs_more_than_was_set_aside(seed, hedge_after_s):
    source = random.Random(seed)
    made = router(hedge_after_s=hedge_after_s, escalation={"mode": "buffer"})
    form = {"response_format": {"type": "json_object"}} if seed % 3 == 0 else {}
    tools = {"tools": [{"type": "stepdown:escalate"}]} if seed % 2 else {}
    asked = asks("word " * source.randint(1, 300), max_tokens=source.randint(1, 300), **form, **tools)
    first = tuple(source.sample(NAMES[:2], source.randint(1, 2)))
    decided = replace(made.decide(asked), tier=first[0], first=first, judge=Whim(source))
    done = drive(made.flow(asked, decided).steps, long)
    assert usd(made, done.ledger) <= max_cost(made.config, made.count, asked, decided, "cascade")[1]


DELEGATION = {"mode": "plan", "min_input_tokens": 20, "min_saving": 0.0, "offload_min_tokens": 20, "max_cost_ratio": 2.0}


@HEDGES
@pytest.mark.parametrize("seed", range(12))
def test_no_delegation_costs_more_than_was_set_aside(seed, hedge_after_s):
    source = random.Random(seed)
    made = router(hedge_after_s=hedge_after_s, delegation=DELEGATION)
    asked = asks(PARTS, **({"max_tokens": source.randint(400, 900)} if seed % 2 else {}))
    decided = made.decide(asked)
    assert decided.considered is not None

    def script(call):
        if call.role in ("plan", "repair"):
            return source.choice([json.dumps({"plan": [{"each": "c1"}]}), "no plan", json.dumps({"plan": []})])
        return source.choice([long(call), Said(""), Said("fine"), long(call)])

    done = drive(made.flow(asked, decided).steps, script)
    assert usd(made, done.ledger) <= max_cost(made.config, made.count, asked, decided, "delegation")[1]


@HEDGES
@pytest.mark.parametrize("seed", range(12))
def test_no_tool_mode_costs_more_than_was_set_aside(seed, hedge_after_s):
    source = random.Random(seed)
    made = router(hedge_after_s=hedge_after_s, delegation={"mode": "tool", "max_cost_ratio": 2.0})
    form = {"response_format": {"type": "json_object"}} if seed % 3 == 0 else {}
    asked = asks("word " * 50, max_tokens=source.randint(100, 500), tools=[{"type": "stepdown:delegate"}], **form)
    decided = made.decide(asked)

    def script(call):
        if call.role == "turn" and source.random() < 0.7:
            plan = {"plan": [{"prompt": f"count cats {source.random()}"}, {"prompt": "count dogs"}]}
            made_call = {"id": "c", "type": "function", "function": {"name": "stepdown_delegate", "arguments": json.dumps(plan)}}
            return replace(long(call), more={"tool_calls": (made_call,)})
        return long(call)

    done = drive(made.flow(asked, decided).steps, script)
    assert usd(made, done.ledger) <= max_cost(made.config, made.count, asked, decided, "tools")[1]


@pytest.mark.parametrize("tiers", [("small", "medium"), ("medium", "large")])
def test_no_race_costs_more_than_was_set_aside(tiers):
    """Both write to their end; in serving the loser is stopped before."""
    made = router(escalation={"mode": "hedge"})
    asked = asks(max_tokens=100)
    _, most_usd = bound(made, asked, "cascade", tier=tiers[0])
    wait_s = dict(zip(tiers, (3.0, 2.0), strict=True))
    run = drive(Race(asked.body, tiers, 1.0).run(), lambda call: replace(long(call), wait_s=wait_s[call.tier]))
    assert len(run.ledger) == 2 and 0 < usd(made, run.ledger) <= most_usd


def test_a_tier_that_is_asked_for_is_the_only_one_that_is_paid():
    made = router(escalation={"mode": "buffer"})
    asked = Request("chat/completions", {**asks(max_tokens=10).body, "model": "small"})
    size, found = max_cost(made.config, made.count, asked, made.decide(asked), "direct")
    assert found == pytest.approx((size.input_tokens + 3 * 10) / 1e6)


def test_tiers_that_are_ruled_out_are_not_set_aside_for():
    made = router(escalation={"mode": "buffer"})
    asked = asks(max_tokens=10)
    decided = replace(made.decide(asked), tier="small", judge=Whim(random.Random(0)))
    both = [
        max_cost(made.config, made.count, asked, replace(decided, excluded=out), "cascade")[1] for out in ({}, {"large": "no"})
    ]
    assert both[1] < both[0] / 2


def test_tool_mode_may_take_three_turns_after_its_last_plan_and_all_of_them_are_set_aside():
    """An answer of the wrong form, one that can only answer and is wrong too, and that one mended."""
    made = router(delegation={"mode": "tool", "max_cost_ratio": 2.0})
    tools = [{"type": "stepdown:delegate"}, {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    asked = asks("word " * 50, max_tokens=100, tools=tools, response_format={"type": "json_object"})
    plans = iter(range(made.config.delegation.max_plans))

    def script(call):
        n = next(plans, None) if call.role == "turn" else None
        if n is None:
            return long(call)
        plan = {"plan": [{"prompt": f"count cats {n}"}, {"prompt": f"count dogs {n}"}]}
        made_call = {"id": "c", "type": "function", "function": {"name": "stepdown_delegate", "arguments": json.dumps(plan)}}
        return replace(long(call), more={"tool_calls": (made_call,)})

    decided = made.decide(asked)
    done = drive(made.flow(asked, decided).steps, script)
    assert len(done.of("turn")) == made.config.delegation.max_plans + LAST_TURNS == made.config.delegation.max_plans + 3
    assert usd(made, done.ledger) <= max_cost(made.config, made.count, asked, decided, "tools")[1]
