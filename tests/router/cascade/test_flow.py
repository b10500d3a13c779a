"""Escalation as lists in and lists out: no tier, no server, no clock."""

from dataclasses import dataclass

import pytest
from scripted import answered_at_once

from router.cascade.flow import WHOLE, AcceptAny, Cascade
from router.config import Escalation
from router.errors import NoReplica, TierFailed
from router.types import Accept, Call, Chosen, Commit, Fail, GoUp, Reply, Step

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
            return GoUp(("large",), "no evidence")
        return GoUp((NAMES[min(2, 1 + max(map(NAMES.index, answers)))],), "low confidence")


def good(text="fine", **more):
    return {"text": text, "finish_reason": "stop", "logprobs": (-0.1,), **more}


DOUBT = good("doubt", logprobs=(-5.0,))
DOWN = {"error": NoReplica("x", "gone")}


def play(script, body=BODY, first=("small",), names=NAMES, **settings):
    """Run the flow; script: tier -> reply, or replies in turn. Returns (end with the outcomes of all steps, steps)."""
    cascade = Cascade(body, names, Sure(), Escalation(**{"mode": "buffer", **settings}), stream=False)
    turns = {tier: iter(r if isinstance(r, list) else [r] * 9) for tier, r in {"large": good(), **script}.items()}
    return answered_at_once(cascade.run(first), lambda call: Reply(call, **next(turns[call.tier])))


def ids(steps: list[Step]) -> list[list[str]]:
    return [[call.id for call in step.start] for step in steps]


@pytest.mark.parametrize(
    "script, asked, outcomes",
    [
        ({"small": good()}, [["attempt-small"]], {"attempt-small": "accepted"}),
        (
            {"small": DOUBT, "medium": good()},
            [["attempt-small"], ["attempt-medium"]],
            {"attempt-small": "low confidence", "attempt-medium": "accepted"},
        ),
        (
            {"small": DOUBT, "medium": DOUBT, "large": DOUBT},
            [["attempt-small"], ["attempt-medium"], ["final-large"]],
            {"attempt-small": "low confidence", "attempt-medium": "low confidence", "final-large": "accepted"},
        ),
        (
            {"small": good(logprobs=()), "large": good()},
            [["attempt-small"], ["final-large"]],
            {"attempt-small": "no evidence", "final-large": "accepted"},
        ),
        (
            {"small": good(""), "medium": good()},
            [["attempt-small"], ["attempt-medium"]],
            {"attempt-small": "empty", "attempt-medium": "accepted"},
        ),
        (
            {"small": good(finish_reason="length"), "medium": good()},
            [["attempt-small"], ["attempt-medium"]],
            {"attempt-small": "truncated", "attempt-medium": "accepted"},
        ),
        (
            {"small": good("", thought="hm", finish_reason="length"), "medium": good("", thought="hm", finish_reason="length")},
            [["attempt-small"], ["attempt-medium"], ["final-large"]],
            {"attempt-small": "thought too long", "attempt-medium": "thought too long", "final-large": "accepted"},
        ),
        (
            {"small": good("no idea <ESCALATE>"), "medium": good()},
            [["attempt-small"], ["attempt-medium"]],
            {"attempt-small": "too hard", "attempt-medium": "accepted"},
        ),
        (
            {"small": DOWN, "medium": good()},
            [["attempt-small"], ["attempt-medium"]],
            {"attempt-small": "backend failed", "attempt-medium": "accepted"},
        ),
    ],
)
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


def test_a_form_that_cannot_be_told_in_time_is_no_evidence_and_goes_up():
    long = good("[" + "1," * 120_000 + "1]")
    end, steps = play({"small": long, "medium": good('{"a": 1}')}, {**BODY, "response_format": SCHEMA})
    assert ids(steps) == [["attempt-small"], ["attempt-medium"]]  # asked again, it would say as much
    assert end.outcomes == {"attempt-small": "schema not judged", "attempt-medium": "accepted"}


@pytest.mark.parametrize("refusal", [{"refusal": "I will not"}, {"finish_reason": "content_filter", "text": ""}])
def test_a_refusal_is_final_however_unsure(refusal):
    end, steps = play({"small": {**DOUBT, **refusal}})
    assert end.call_id == "attempt-small" and len(steps) == 1


def test_a_request_that_a_tier_calls_wrong_is_not_asked_again():
    error = TierFailed("small", "temperature is 9", 400)
    end, steps = play({"small": {"error": error}})
    assert isinstance(end, Fail) and end.error is error and len(steps) == 1


@pytest.mark.parametrize(
    "script, came",
    [
        ({"small": DOUBT, "medium": DOWN, "large": DOWN}, "attempt-small"),
        ({"large": DOWN, "medium": good(), "small": good()}, "attempt-medium"),
    ],
)
def test_with_the_top_tier_down_the_best_below_stands_in_and_says_so(script, came):
    end, _ = play(script, first=("small",) if came == "attempt-small" else ("large",))
    assert end.call_id == came
    assert end.report.get("degraded") or came == "attempt-medium"


def test_of_several_answers_the_largest_tiers_stands_in():
    end, _ = play({"small": DOUBT, "medium": DOUBT, "large": DOWN})
    assert (end.call_id, end.report["degraded"]) == ("attempt-medium", True)


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


def test_each_stream_is_given_up_once():
    script = {"small": {**DOUBT, "partial": True}, "medium": {**DOUBT, "partial": True}, "large": good()}
    _, steps = play(script, mode="holdback")
    assert [step.cancel for step in steps] == [(), ("attempt-small",), ("attempt-medium",)]


@dataclass
class Fickle:
    """Likes the smallest answer once it has seen a larger one."""

    asked: list

    def next(self, answers):
        self.asked.append(list(answers))
        return Accept("small") if len(answers) > 1 else GoUp((NAMES[NAMES.index(list(answers)[-1]) + 1],), "low confidence")


def test_a_stream_that_was_given_up_cannot_be_chosen_later():
    judge = Fickle([])
    flow = Cascade(BODY, NAMES, judge, Escalation(mode="holdback"), stream=True).run(["small"])
    said = {"small": {**DOUBT, "partial": True}, "medium": {**DOUBT, "partial": True}, "large": good()}
    step = next(flow)
    with pytest.raises(StopIteration) as done:
        while True:
            step = flow.send([Reply(call, **said[call.tier]) for call in step.start])
    assert judge.asked == [["small"], ["medium"]] and done.value.value.call_id == "final-large"


def test_with_the_top_down_what_was_given_up_is_no_answer_to_fall_back_to():
    said = {"small": DOUBT, "medium": {**DOUBT, "partial": True}, "large": DOWN}
    end, steps = play(said, mode="holdback")
    assert (end.call_id, end.report["degraded"]) == ("attempt-small", True) and steps[-1].cancel == ("attempt-medium",)


@pytest.mark.parametrize("asked, sent", [({}, 2), ({"top_logprobs": 1}, 2), ({"top_logprobs": 5}, 5)])
def test_attempts_ask_for_what_judging_needs(asked, sent):
    _, steps = play({"small": good()}, {**BODY, **asked})
    body = steps[0].start[0].body
    assert (body["logprobs"], body["top_logprobs"], body["messages"]) == (True, sent, BODY["messages"])


def test_where_nobody_judges_no_log_probabilities_are_asked_for():
    cascade = Cascade(BODY, NAMES, AcceptAny(), Escalation(mode="buffer"), stream=False, scored=False)
    assert cascade.call("small").body == BODY


@pytest.mark.parametrize(
    "script, escalations",
    [
        ({"small": good()}, 0),
        ({"small": DOUBT, "medium": good()}, 1),
        ({"small": DOWN, "medium": good()}, 1),
        ({"small": DOWN, "medium": DOUBT, "large": DOUBT}, 2),
    ],
)
def test_tiers_left_behind_are_counted_failed_ones_too(script, escalations):
    end, _ = play(script)
    assert end.report == {"escalations": escalations}


def test_an_answer_that_was_paid_for_and_not_needed_says_so():
    end, _ = play({"small": DOUBT, "medium": good()}, first=("small", "medium"))
    assert end.outcomes == {"attempt-small": "not needed", "attempt-medium": "accepted"}


def test_it_decides_when_all_that_were_asked_have_answered_asked_again_or_not():
    """The medium tier comes last; in between the small one is asked once more for its form."""
    seen = []

    class Watching(AcceptAny):
        def next(self, answers):
            seen.append(list(answers))
            return super().next(answers)

    body = {**BODY, "response_format": SCHEMA}
    flow = Cascade(body, NAMES, Watching(), Escalation(mode="buffer"), stream=False).run(["small", "medium"])
    small, medium = next(flow).start
    (again,) = flow.send([Reply(small, **good("prose"))]).start
    assert again.id == "attempt-small-again" and flow.send([Reply(again, **good('{"a": 1}'))]).start == () and not seen
    with pytest.raises(StopIteration) as done:
        flow.send([Reply(medium, **good('{"a": 2}'))])
    assert seen == [["small", "medium"]] and done.value.value.call_id == "attempt-medium"


def test_unseen_takes_the_largest_that_answered():
    assert AcceptAny().next({"small": Reply(None), "medium": Reply(None)}) == Accept("medium")


@dataclass
class Says:
    verdict: GoUp

    def next(self, answers):
        return self.verdict


@pytest.mark.parametrize("tiers", [("small",), (), ("unknown",)])
def test_a_judge_that_names_nobody_larger_means_the_top(tiers):
    flow = Cascade(BODY, NAMES, Says(GoUp(tiers, "low confidence")), Escalation(mode="buffer"), stream=False).run(["small"])
    step = flow.send([Reply(next(flow).start[0], **DOUBT)])
    assert [call.id for call in step.start] == ["final-large"]


def test_a_failure_goes_to_the_top_when_the_steps_are_used_up():
    _, steps = play({"small": DOWN, "large": good()}, max_steps=1)
    assert ids(steps) == [["attempt-small"], ["final-large"]]


def test_the_top_tiers_answer_is_never_judged_nor_called_second_best():
    end, _ = play({"small": DOUBT, "medium": DOUBT, "large": DOUBT})
    assert "degraded" not in end.report


def test_where_the_top_has_answered_in_the_wrong_way_no_smaller_one_is_asked():
    end, steps = play({"large": good("cut", finish_reason="length")}, first=("large",))
    assert ids(steps) == [["final-large"]] and end.call_id == "final-large"


def test_only_attempts_are_shown_the_way_up():
    cascade = Cascade(BODY, NAMES, Sure(), Escalation(mode="buffer"), stream=True, escalate=set(NAMES))
    assert "tools" in cascade.call("small").body and "tools" not in cascade.call("large").body
    assert (cascade.hold("small"), cascade.hold("large")) == (WHOLE, 1)


@pytest.mark.parametrize(
    "shown, asked", [({"small"}, [["attempt-small"], ["attempt-small-again"]]), (set(), [["attempt-small"]])]
)
def test_a_tier_that_refuses_our_function_is_asked_without_it(shown, asked):
    refusal = {"error": TierFailed("small", "this model takes no tools", 400)}
    cascade = Cascade(BODY, NAMES, Sure(), Escalation(mode="buffer"), stream=False, escalate=set(shown))
    flow, sent = cascade.run(["small"]), []
    said = iter([refusal, good()])
    step = next(flow)
    with pytest.raises(StopIteration) as done:
        while True:
            sent.append(step)
            step = flow.send([Reply(call, **next(said)) for call in step.start])
    assert ids(sent) == asked
    if shown:
        assert "tools" not in sent[1].start[0].body and done.value.value.call_id == "attempt-small-again"
    else:
        assert isinstance(done.value.value, Fail)


def test_streams_are_let_go_before_another_flow_takes_over():
    def top_flow(replies):
        call = Call("turn", "large", "turn", BODY)
        yield Step((call,))
        return Commit("turn", report={"turns": 1})

    cascade = Cascade(
        BODY, ["small", "large"], Says(GoUp(("large",), "low confidence")), Escalation(mode="holdback"), stream=True
    )
    cascade.top_flow = lambda replies: Chosen("tools", top_flow(replies))
    flow = cascade.run(["small"])
    step = flow.send([Reply(next(flow).start[0], **DOUBT, partial=True)])
    assert (step.start, step.cancel, step.kind) == ((), ("attempt-small",), "tools")
    (call,) = flow.send([]).start
    with pytest.raises(StopIteration) as done:
        flow.send([Reply(call, **good())])
    assert done.value.value.report == {"turns": 1, "escalations": 1}


def test_what_takes_over_counts_the_tiers_that_failed():
    def top_flow(replies):
        yield Step((Call("turn", "large", "turn", BODY),))
        return Commit("turn")

    cascade = Cascade(BODY, ["small", "large"], Sure(), Escalation(mode="buffer"), stream=False)
    cascade.top_flow = lambda replies: Chosen("tools", top_flow(replies))
    flow = cascade.run(["small"])
    assert flow.send([Reply(next(flow).start[0], **DOWN)]).kind == "tools"
    (call,) = flow.send([]).start
    with pytest.raises(StopIteration) as done:
        flow.send([Reply(call, **good())])
    assert done.value.value.report == {"escalations": 1}


def test_what_takes_over_at_the_top_is_told_of_every_answer_that_was_paid_for():
    """An answer of the wrong form, the second one, and a rejected one."""
    told = []

    def top_flow(replies):
        told.extend(reply.call.id for reply in replies)
        call = Call("turn", "large", "turn", BODY)
        yield Step((call,))
        return Commit("turn")

    cascade = Cascade({**BODY, "response_format": SCHEMA}, NAMES, Sure(), Escalation(mode="buffer"), stream=False)
    cascade.top_flow = lambda replies: Chosen("tools", top_flow(replies))
    said = {"small": good("no JSON"), "medium": good('{"a": 1}', logprobs=(-5.0,)), "large": good('{"a": 1}')}
    flow = cascade.run(["small"])
    step = next(flow)
    with pytest.raises(StopIteration):
        while True:
            step = flow.send([Reply(call, **said[call.tier]) for call in step.start])
    assert told == ["attempt-small", "attempt-small-again", "attempt-medium"]
