"""Which flow answers a request, which tier a subtask gets, and by which target its answers are judged."""

from dataclasses import replace
from typing import Any

import pytest
from planning import PLANNING
from scripted import words

from router.choose_flow import LOWEST, STRICTEST, Flows
from router.client_options import ClientLimits, OfferedTools
from router.config import Config, load_config
from router.engine import Router, load_artefact
from router.types import Accept, Decision, GoUp, Reply, Request

NAMES = ["small", "medium", "large"]
PARTS = "Do each of these:\n" + "\n".join(f"{i}. Summarise report number {i} in one line." for i in range(1, 9))
HEDGE = {"mode": "hedge"}
DELEGATE = OfferedTools(delegate=ClientLimits())
ESCALATE = OfferedTools(escalate=True)
JSON = {"response_format": {"type": "json_object"}}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


class Judge:
    def next(self, answers: dict[str, Reply]) -> Accept | GoUp:
        return Accept(list(answers)[-1])


def router(tools: bool = True, **sections: Any) -> Router:
    prices = {name: {"usd_per_1m_input": usd, "usd_per_1m_output": usd} for name, usd in zip(NAMES, (1, 4, 20), strict=True)}
    tiers = [{"name": n, "engine": "echo", "context": 100_000, "price": prices[n], "tools": tools} for n in NAMES]
    config = Config.model_validate({"tiers": tiers, **sections})
    return Router(config, None, dict.fromkeys(NAMES, words))


def asks(text: str = "hello", limits: ClientLimits | None = None, tests: str = "", **more: Any) -> Request:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], **more}
    return Request("chat/completions", body, limits, tests)


def decided(tier: str = "large", target: str = "balanced", **more: Any) -> Decision:
    return Decision(tier, "good enough", target, **more)


TESTS = {"escalation": {"tests": "sandbox:passes"}}
CHOICES: dict[str, tuple[dict[str, Any], Request, Decision, OfferedTools, str, bool]] = {
    "the top tier": ({}, asks(), decided(), OfferedTools(), "direct", False),
    "a smaller tier nobody looks at": ({}, asks(), decided("small"), OfferedTools(), "direct", False),
    "a smaller tier that is looked at": ({}, asks(), decided("small", judge=Judge()), OfferedTools(), "cascade", True),
    "the top tier although answers are looked at": ({}, asks(), decided(judge=Judge()), OfferedTools(), "direct", False),
    "a tier asked for by name": ({}, asks(), decided("small", "small", judge=Judge()), OfferedTools(), "direct", False),
    "several answers": ({}, asks(n=2), decided("small", judge=Judge()), OfferedTools(), "direct", False),
    "a race": ({"escalation": HEDGE}, asks(), decided("small"), OfferedTools(), "race", True),
    "a race that the top tier needs not": ({"escalation": HEDGE}, asks(), decided(), OfferedTools(), "direct", False),
    "a race with nobody allowed": (
        {"escalation": HEDGE},
        asks(),
        decided("medium", excluded={"large": "down"}),
        OfferedTools(),
        "direct",
        False,
    ),
    "a plan": ({"delegation": PLANNING}, asks(PARTS), decided(), OfferedTools(), "delegation", True),
    "a plan that a smaller tier does not make": (
        {"delegation": PLANNING},
        asks(PARTS),
        decided("small"),
        OfferedTools(),
        "direct",
        False,
    ),
    "a plan for what comes with tests": (
        {"delegation": PLANNING, **TESTS},
        asks(PARTS, tests="assert f()"),
        decided(),
        OfferedTools(),
        "direct",
        False,
    ),
    "tool mode": ({"delegation": {"mode": "tool"}}, asks(), decided(), DELEGATE, "tools", True),
    "tool mode by name": ({"delegation": {"mode": "tool"}}, asks(), decided("large", "large"), DELEGATE, "tools", True),
    "tool mode that is not offered": ({"delegation": {"mode": "tool"}}, asks(), decided("small"), DELEGATE, "direct", True),
    "a smaller tier that may hand up": ({}, asks(), decided("small"), ESCALATE, "cascade", True),
    "the top tier cannot hand up": ({}, asks(), decided(), ESCALATE, "direct", False),
    "tests of the client": (TESTS, asks(tests="assert f()"), decided("small"), OfferedTools(), "cascade", True),
    "a limit on a plain call": ({}, asks(limits=ClientLimits(max_cost_usd=1.0)), decided(), OfferedTools(), "direct", True),
    "a limit on a race": (
        {"escalation": HEDGE},
        asks(limits=ClientLimits(deadline_s=9.0)),
        decided("small"),
        OfferedTools(),
        "race",
        True,
    ),
    "a limit on a cascade": (
        {},
        asks(limits=ClientLimits(deadline_s=9.0)),
        decided("small", judge=Judge()),
        OfferedTools(),
        "cascade",
        True,
    ),
}


@pytest.mark.parametrize("name", CHOICES)
def test_the_kind_of_flow(name: str) -> None:
    """steps: whether the flow has steps of its own; a plain call has none unless something is to be told or limited."""
    sections, asked, decision, offered, kind, steps = CHOICES[name]
    chosen = router(**sections).flows.choose(asked, decision, offered)
    assert (chosen.kind, chosen.steps is not None) == (kind, steps)


def test_a_completion_is_always_one_plain_call() -> None:
    asked = Request("completions", {"model": "auto", "prompt": "hello"})
    chosen = router(escalation=HEDGE).flow(asked, decided("small"))
    assert (chosen.kind, chosen.steps) == ("direct", None)


@pytest.mark.parametrize(
    "decision, more, why",
    [
        (decided("small"), {}, "a smaller tier answers"),
        (decided("small", excluded={"medium": "down", "large": "down"}), {}, "there is no smaller tier"),
        (decided(), {"tool_choice": "none"}, "tool_choice"),
        (decided(), {"n": 2}, "several answers"),
        (decided(), {"functions": [{"name": "f"}]}, "functions of the old kind"),
        (decided(), {"messages": [{"role": "assistant", "content": "x"}]}, "not the user's"),
        (decided(), {}, ""),
    ],
)
def test_why_the_function_is_not_shown(decision: Decision, more: dict[str, Any], why: str) -> None:
    found = router().flows.why_no_delegation(asks(**more).body, decision)
    assert why in found and bool(found) == bool(why)


def test_a_tier_that_takes_no_tools_is_not_shown_the_function() -> None:
    assert router(tools=False).flows.why_no_delegation(asks().body, decided()) == "tier large takes no tools"
    assert router(tools=False).flows.tiers_with_escalate(NAMES, asks().body) == set()


# -- subtasks --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pocket() -> Flows:
    config = load_config("pocket")
    return Flows(config, load_artefact(config), dict.fromkeys(config.names, words))


EASY = "What is 2 plus 3?"


@pytest.mark.parametrize(
    "hint, tier",
    [(None, "small"), ("trivial", "small"), ("easy", "small"), ("medium", "medium"), ("hard", "large"), ("odd", "small")],
)
def test_the_planners_hint_raises_the_tier_that_the_classifier_chose(pocket: Flows, hint: str | None, tier: str) -> None:
    assert pocket.cheapest(EASY) == "small"
    assert pocket.route(EASY, hint) == tier


@pytest.mark.parametrize("hint", LOWEST)
def test_the_planners_hint_never_lowers_it(pocket: Flows, hint: str) -> None:
    hard = next(text for text in (f"Sort these numbers: {' '.join(map(str, range(n, 0, -7)))}" for n in (90, 200, 400)))
    chosen = NAMES.index(pocket.cheapest(hard))
    assert NAMES.index(pocket.route(hard, hint)) >= chosen


@pytest.mark.parametrize("hint, tier", [(None, "medium"), ("easy", "medium"), ("medium", "medium"), ("hard", "large")])
def test_without_a_trained_router_a_subtask_goes_to_the_tier_below_the_top(hint: str | None, tier: str) -> None:
    assert router().flows.route("anything", hint) == tier


def test_what_a_shorter_ladder_lacks_its_top_takes() -> None:
    flows = router().flows
    assert flows.route_within(flows.rungs[:1])("anything", "hard") == "small"


def test_subtasks_are_judged_by_the_strictest_target_there_is(pocket: Flows) -> None:
    assert STRICTEST == ("quality", "balanced", "cheap") and pocket.strict == "quality"
    assert pocket.artefact is not None
    for left in (["balanced", "cheap"], ["cheap"]):
        rules = {name: pocket.artefact.rules[name] for name in left}
        poorer = Flows(pocket.config, replace(pocket.artefact, rules=rules), dict.fromkeys(NAMES, words))
        assert poorer.strict == left[0]


def test_the_strictest_target_is_the_one_that_routes_and_judges(pocket: Flows) -> None:
    """What `cheap` would leave to a smaller tier goes up under `quality`."""
    assert pocket.artefact is not None
    asked: list[str] = []

    def spied(p: Any, cost: Any, target: str, *rest: Any) -> None:
        asked.append(target)

    flows = Flows(pocket.config, pocket.artefact, dict.fromkeys(NAMES, words))
    flows.judge = spied  # type: ignore[assignment, method-assign]
    flows.cheapest(EASY)
    assert flows.escalation_reason("small", EASY, Reply(None, "5")) is None  # type: ignore[arg-type]
    assert asked == ["quality", "quality"]
