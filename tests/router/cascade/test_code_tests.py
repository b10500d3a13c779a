"""Code that passes the client's tests is accepted, code that fails them goes up: in flows, without running anything."""

import json

import pytest
import sandbox
from scripted import answered_at_once

from router.cascade.code_tests import load_code_check
from router.cascade.flow import WHOLE, AcceptAny, Cascade
from router.client_options import ClientLimits, OfferedTools
from router.config import Config, Escalation
from router.engine import Router
from router.errors import BadConfig, BadRequest
from router.request import wire
from router.types import Commit, Decision, GoUp, Reply

NAMES = ["small", "medium", "large"]
MESSAGES = [{"role": "user", "content": "write f"}]
PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
TIERS = [{"name": name, "engine": "echo", "context": 10_000, "price": PRICE} for name in NAMES]


class Doubtful:
    """Would accept nothing but the top."""

    def next(self, answers):
        return GoUp(("large",), "low confidence")


def play(passed, judge=None, stream=False, **settings):
    """The end of a flow whose tiers answer; passed: tier -> what its tests gave. Returns (end, ids of calls, calls)."""
    cascade = Cascade({"messages": MESSAGES}, NAMES, judge or Doubtful(), Escalation(**settings), stream, tests="assert f()")

    def reply(call):
        return Reply(call, "code", "stop", passed=passed.get(call.tier) if call.tests else None)

    end, steps = answered_at_once(cascade.run(["small"]), reply)
    calls = [call for step in steps for call in step.start]
    return end, [call.id for call in calls], calls


def test_code_that_passes_is_accepted_whatever_its_confidence():
    end, asked, _ = play({"small": True})
    assert isinstance(end, Commit) and end.call_id == "attempt-small" and asked == ["attempt-small"]
    assert end.outcomes == {"attempt-small": "accepted"}


def test_code_that_fails_goes_up_and_is_never_the_answer():
    end, asked, _ = play({"small": False, "medium": True}, AcceptAny())
    assert end.call_id == "attempt-medium" and asked == ["attempt-small", "attempt-medium"]
    assert end.outcomes == {"attempt-small": "tests failed", "attempt-medium": "accepted"}


def test_where_nobody_could_tell_the_judge_decides():
    assert play({}, AcceptAny())[0].call_id == "attempt-small"
    assert play({}, Doubtful())[0].call_id == "final-large"


def test_the_largest_tiers_answer_stands_untested():
    end, asked, calls = play({"small": False, "medium": False}, AcceptAny())
    assert end.call_id == "final-large" and len(asked) == 3
    assert [call.tests for call in calls] == ["assert f()", "assert f()", ""]


def test_a_stream_is_held_whole_for_its_code_is_run_whole():
    _, _, calls = play({"small": True}, stream=True, mode="holdback")
    assert calls[0].hold == WHOLE


# -- the request ----------------------------------------------------------------------------------------------------------


def parsed(own, **more):
    return wire.parse("chat/completions", json.dumps({"model": "auto", "messages": MESSAGES, "stepdown": own, **more}).encode())


def test_tests_are_read_and_no_tier_is_sent_them():
    asked = parsed({"tests": "assert f()", "max_cost_usd": 0.5})
    assert asked.tests == "assert f()" and asked.limits == ClientLimits(max_cost_usd=0.5) and "stepdown" not in asked.body
    assert parsed({"tests": "assert f()"}).limits is None and parsed({"tests": None}).tests == ""


@pytest.mark.parametrize(
    "own, more",
    [
        ({"tests": 3}, {}),
        ({"tests": " "}, {}),
        ({"tests": ["assert f()"]}, {}),
        ({"tests": "assert f()"}, {"n": 2}),
        ({"tests": "assert f()", "test": 1}, {}),
    ],
)
def test_what_are_no_tests_is_refused(own, more):
    with pytest.raises(BadRequest, match="stepdown"):
        parsed(own, **more)


def test_completions_take_none():
    body = {"model": "auto", "prompt": "write f", "stepdown": {"tests": "assert f()"}}
    with pytest.raises(BadRequest, match="chat/completions"):
        wire.parse("completions", json.dumps(body).encode())


# -- the server -----------------------------------------------------------------------------------------------------------


def router(**escalation):
    config = Config.model_validate({"tiers": TIERS, "escalation": escalation})
    return Router(config, None, dict.fromkeys(config.names, len))


def test_a_server_that_runs_none_says_so():
    with pytest.raises(BadRequest, match=r"escalation\.tests"):
        router().decide(parsed({"tests": "assert f()"}))
    assert router(tests="sandbox:passes").decide(parsed({"tests": "assert f()"})).tier == "large"


@pytest.mark.parametrize("offered", [OfferedTools(), OfferedTools(escalate=True)])
def test_also_where_answers_are_not_looked_at_otherwise(offered):
    flows = router(tests="sandbox:passes").flows
    chosen = flows.choose(parsed({"tests": "assert f()"}), Decision("small", "good enough", "balanced"), offered)
    (call,) = next(chosen.steps).start
    assert chosen.kind == "cascade"
    assert (call.tier, call.tests, call.role) == ("small", "assert f()", "attempt")


def test_of_a_tier_asked_for_by_name_and_of_the_top_none_are_run():
    flows = router(tests="sandbox:passes").flows
    for decided in (Decision("small", "asked for", "small"), Decision("large", "good enough", "balanced")):
        assert flows.choose(parsed({"tests": "assert f()"}), decided, OfferedTools()).steps is None


def test_the_function_is_found():
    assert load_code_check("sandbox:passes") is sandbox.passes and load_code_check(None) is None


@pytest.mark.parametrize("name", ["sandbox", "sandbox:", "sandbox:nothing", "no_such_module:f", "sandbox:NOT_A_FUNCTION"])
def test_a_name_that_leads_nowhere_stops_the_start(name):
    with pytest.raises(BadConfig, match=r"escalation\.tests"):
        router(tests=name)
