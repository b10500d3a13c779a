"""Escalation as lists in and lists out: no tier, no server, no clock."""

from dataclasses import dataclass, replace

import pytest

from router.cascade import WHOLE, Accept, Cascade, Up
from router.config import Escalation
from router.errors import NoReplica, TierFailed
from router.types import Call, Commit, Fail, Reply, Step

NAMES = ["small", "medium", "large"]
BODY = {"messages": [{"role": "user", "content": "hello"}]}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "required": ["a"]}}}


@dataclass
class Sure:
    """Accepts an answer whose least log-probability reaches the bar, the cheapest first; else the next tier."""

    bar: float = -1.0

    def next(self, answers):
        for tier, reply in answers.items():
            if reply.logprobs and min(reply.logprobs) >= self.bar:
                return Accept(tier)
        if not all(reply.logprobs for reply in answers.values()):
            return Up(("large",), "no evidence")
        return Up((NAMES[min(2, 1 + max(map(NAMES.index, answers)))],), "low confidence")


def good(text="fine", **more):
    return {"text": text, "finish_reason": "stop", "logprobs": (-0.1,), **more}


DOUBT = good("doubt", logprobs=(-5.0,))
DOWN = {"error": NoReplica("x", "gone")}


def play(script, body=BODY, first=("small",), names=NAMES, **settings):
    """Run the flow; script: tier -> reply, or replies in turn. Returns (end, steps)."""
    cascade = Cascade(body, names, Sure(), Escalation(**{"mode": "buffer", **settings}), stream=False)
    flow, steps, turns = cascade.run(first), [], {tier: iter(r if isinstance(r, list) else [r] * 9) for tier, r in script.items()}
    try:
        step = next(flow)
        while True:
            steps.append(replace(step, outcomes=dict(step.outcomes)))
            step = flow.send([Reply(call, **next(turns[call.tier])) for call in step.start])
    except StopIteration as done:
        return done.value, steps


def ids(steps: list[Step]) -> list[list[str]]:
    return [[call.id for call in step.start] for step in steps]


@pytest.mark.parametrize("script, asked, outcomes", [
    ({"small": good()}, [["attempt-small"]], {"attempt-small": "accepted"}),
    ({"small": DOUBT, "medium": good()}, [["attempt-small"], ["attempt-medium"]],
     {"attempt-small": "low confidence", "attempt-medium": "accepted"}),
    ({"small": DOUBT, "medium": DOUBT, "large": DOUBT}, [["attempt-small"], ["attempt-medium"], ["final-large"]],
     {"attempt-small": "low confidence", "attempt-medium": "low confidence", "final-large": "accepted"}),
    ({"small": good(logprobs=()), "large": good()}, [["attempt-small"], ["final-large"]],
     {"attempt-small": "no evidence", "final-large": "accepted"}),
    ({"small": good(""), "medium": good()}, [["attempt-small"], ["attempt-medium"]],
     {"attempt-small": "empty", "attempt-medium": "accepted"}),
    ({"small": good(finish_reason="length"), "medium": good()}, [["attempt-small"], ["attempt-medium"]],
     {"attempt-small": "truncated", "attempt-medium": "accepted"}),
    ({"small": good("no idea <ESCALATE>"), "medium": good()}, [["attempt-small"], ["attempt-medium"]],
     {"attempt-small": "too hard", "attempt-medium": "accepted"}),
    ({"small": DOWN, "medium": good()}, [["attempt-small"], ["attempt-medium"]],
     {"attempt-small": "backend failed", "attempt-medium": "accepted"}),
])  # fmt: skip
def test_an_answer_that_is_not_good_enough_goes_up(script, asked, outcomes):
    end, steps = play(script)
    assert (ids(steps), end.outcomes) == (asked, outcomes)
    assert isinstance(end, Commit) and end.call_id == asked[-1][0]


def test_what_the_client_cut_short_is_not_escalated():
    end, steps = play({"small": good(finish_reason="length")}, {**BODY, "max_tokens": 1})
    assert end.call_id == "attempt-small"


def test_a_wrong_form_is_asked_for_once_more_and_then_goes_up():
    end, steps = play({"small": good("prose"), "medium": good('{"a": 1}')}, {**BODY, "response_format": SCHEMA})
    assert ids(steps) == [["attempt-small"], ["attempt-small-again"], ["attempt-medium"]]
    assert end.outcomes["attempt-small-again"] == "schema invalid"
    end, steps = play({"small": [good("prose"), good('{"a": 1}')]}, {**BODY, "response_format": SCHEMA})
    assert end.call_id == "attempt-small-again"


@pytest.mark.parametrize("refusal", [{"refusal": "I will not"}, {"finish_reason": "content_filter", "text": ""}])
def test_a_refusal_is_final_however_unsure(refusal):
    end, steps = play({"small": {**DOUBT, **refusal}})
    assert end.call_id == "attempt-small" and len(steps) == 1


def test_a_request_that_a_tier_calls_wrong_is_not_asked_again():
    error = TierFailed("small", "temperature is 9", 400)
    end, steps = play({"small": {"error": error}})
    assert isinstance(end, Fail) and end.error is error and len(steps) == 1


@pytest.mark.parametrize("script, came", [
    ({"small": DOUBT, "medium": DOWN, "large": DOWN}, "attempt-small"),
    ({"large": DOWN, "medium": good(), "small": good()}, "attempt-medium"),
])  # fmt: skip
def test_with_the_top_tier_down_the_best_below_stands_in_and_says_so(script, came):
    end, _ = play(script, first=("small",) if came == "attempt-small" else ("large",))
    assert end.call_id == came
    assert end.told.get("degraded") or came == "attempt-medium"


def test_with_every_tier_down_the_failure_is_told():
    end, steps = play(dict.fromkeys(NAMES, DOWN))
    assert isinstance(end, Fail) and isinstance(end.error, NoReplica)


def test_probes_run_side_by_side():
    end, steps = play({"small": DOUBT, "medium": good()}, first=("small", "medium"))
    assert ids(steps) == [["attempt-small", "attempt-medium"]] and end.call_id == "attempt-medium"


def test_after_the_allowed_steps_only_the_top_is_left():
    end, steps = play({"small": DOUBT, "large": good()}, max_steps=1)
    assert ids(steps) == [["attempt-small"], ["final-large"]]


@pytest.mark.parametrize("mode, hold", [("buffer", WHOLE), ("holdback", 16)])
def test_a_stream_is_held_until_it_is_accepted(mode, hold):
    _, steps = play({"small": DOUBT, "medium": DOUBT, "large": good()}, mode=mode)
    assert [call.hold for step in steps for call in step.start] == [hold, hold, 1]


def test_a_stream_given_up_at_its_first_tokens_is_cancelled():
    _, steps = play({"small": {**DOUBT, "partial": True}, "medium": good()}, mode="holdback")
    assert [step.cancel for step in steps] == [(), ("attempt-small",)]


def test_attempts_ask_for_what_judging_needs():
    _, steps = play({"small": good()})
    sent = steps[0].start[0].body
    assert sent["logprobs"] is True and sent["top_logprobs"] == 2 and sent["messages"] == BODY["messages"]


def test_what_takes_over_at_the_top_is_told_of_every_answer_that_was_paid_for():
    """An answer of the wrong form, the second one, and a rejected one."""
    told = []

    def finale(replies):
        told.extend(reply.call.id for reply in replies)
        call = Call("turn", "large", "turn", BODY)
        yield Step((call,))
        return Commit("turn")

    cascade = Cascade({**BODY, "response_format": SCHEMA}, NAMES, Sure(), Escalation(mode="buffer"), stream=False)
    cascade.finale = finale
    said = {"small": good("no JSON"), "medium": good('{"a": 1}', logprobs=(-5.0,)), "large": good('{"a": 1}')}
    flow = cascade.run(["small"])
    step = next(flow)
    with pytest.raises(StopIteration):
        while True:
            step = flow.send([Reply(call, **said[call.tier]) for call in step.start])
    assert told == ["attempt-small", "attempt-small-again", "attempt-medium"]
