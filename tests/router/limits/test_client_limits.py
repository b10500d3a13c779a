"""ClientLimits of the client's own request: no mix of answers exceeds them, and what is there is given."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import Said, answered_at_once, drive, ladder, words

from router.cascade.flow import Cascade
from router.choose_flow import one_call
from router.client_options import ClientLimits
from router.config import Escalation
from router.errors import BadRequest, BudgetExceeded, DeadlineExceeded, NoReplica
from router.limits.client_limits import FlowLimiter, limit_flow
from router.limits.delegation_budget import Rung
from router.request import wire
from router.types import Accept, Call, Commit, Fail, GoUp, Reply, Step, Usage

BODY = {"messages": [{"role": "user", "content": "one two three"}]}
RUNGS = ladder(1.0, 4.0, 20.0)
GIVEN = RUNGS[0].prompt_tokens(BODY)
LARGE = 20.0 * GIVEN  # a prompt's price at the largest tier; its output costs 80 a token


class Never:
    def next(self, answers):
        return GoUp(("large",), "low confidence")


class Always:
    def next(self, answers):
        return Accept(list(answers)[-1])


def plain(tier="large", **body):
    return one_call(tier, {**BODY, **body}, {})


def cascade(judge, first=("small",)):
    return Cascade(BODY, ["small", "medium", "large"], judge, Escalation(mode="buffer"), stream=False).run(list(first))


def run(flow, script=lambda call: "four words of answer", **limits):
    return drive(limit_flow(flow, ClientLimits(**limits), RUNGS), script)


def test_a_plain_answer_is_cut_to_what_may_be_spent():
    done = run(plain(), max_cost_usd=LARGE + 2.5 * 80)
    assert done.calls[0].body["max_tokens"] == 2 and done.ledger[0][3] == 2


@pytest.mark.parametrize(
    "asked, sent",
    [
        ({"max_tokens": 1}, {"max_tokens": 1}),
        ({"max_tokens": 9}, {"max_tokens": 2}),
        ({"max_completion_tokens": 9}, {"max_completion_tokens": 2}),
    ],
)
def test_the_clients_own_length_counts_where_it_is_shorter(asked, sent):
    body = run(plain(**asked), max_cost_usd=LARGE + 2.5 * 80).calls[0].body
    assert {k: v for k, v in body.items() if k.startswith("max_")} == sent


IMAGE = {"type": "image_url", "image_url": {"url": "data:x"}}
SEEN = {**BODY, "messages": [{"role": "user", "content": [{"type": "text", "text": "what is this"}, IMAGE]}]}


@pytest.mark.parametrize("sent", [1, 2])
@pytest.mark.parametrize("image_tokens", [100, 1_000])
@pytest.mark.parametrize("limit", [0.0, 90.0, 400.0, 1_500.0, 5_000.0])
def test_a_limit_is_strict_with_pictures_and_with_calls_that_are_sent_twice(limit, image_tokens, sent):
    """The tier takes as many tokens as it may for the picture and writes as much as it may; each replica reads the prompt."""
    rung = Rung("large", 10_000, 1.0, 4.0, words, image_tokens, sent)
    usage = []

    def reply(call):
        usage.append(Usage(rung.prompt_tokens(call.body), call.body.get("max_tokens", 10_000)))
        return Reply(call, text="x", usage=usage[-1], sent=sent)

    end, _ = answered_at_once(limit_flow(one_call("large", SEEN, {}), ClientLimits(max_cost_usd=limit), [rung]), reply)
    assert sum(rung.paid(each, sent) for each in usage) <= limit
    assert isinstance(end, Commit) == bool(usage)
    assert bool(usage) == (limit >= rung.most(rung.prompt_tokens(SEEN), 1))


def test_a_call_that_was_sent_twice_leaves_less_for_the_next():
    rung = Rung("large", 10_000, 1.0, 4.0, words, sent=2)

    def twice():
        first = Call("a", "large", "attempt", {**BODY, "max_tokens": 1})
        (yield Step((first,)))
        return Fail((yield Step((replace(first, id="b"),)))[0].error)

    given = rung.prompt_tokens(BODY)
    made = []

    def reply(call):
        made.append(call.id)
        return Reply(call, text="x", usage=Usage(given, 1), sent=2)

    answered_at_once(limit_flow(twice(), ClientLimits(max_cost_usd=4 * given + 7), [rung]), reply)
    assert made == ["a"]


def test_what_cannot_be_paid_is_not_asked():
    done = run(plain(), max_cost_usd=LARGE + 79)
    assert not done.calls and isinstance(done.end, Fail) and isinstance(done.end.error, BudgetExceeded)
    assert not done.outcomes


def test_a_rejected_answer_stands_where_the_larger_cannot_be_paid():
    done = run(cascade(Never()), max_cost_usd=LARGE)
    assert [call.tier for call in done.calls] == ["small"] and isinstance(done.end, Commit)
    assert done.end.report["limited_by"] == "max_cost_usd" and done.end.report["degraded"]


def test_with_enough_money_nothing_changes():
    done = run(cascade(Never()), max_cost_usd=1e9, deadline_s=1e6)
    assert [call.tier for call in done.calls] == ["small", "large"] and "limited_by" not in done.end.report


def test_probes_side_by_side_share_what_there_is():
    done = run(cascade(Always(), ("small", "medium")), lambda call: "word " * 500, max_cost_usd=2_000.0)
    spent = sum(RUNGS[["small", "medium", "large"].index(tier)].cost(*used) for _, tier, *used in done.ledger)
    assert len(done.calls) == 2 and spent <= 2_000


def test_a_deadline_ends_what_runs():
    done = run(plain(), lambda call: Said(wait_s=9.0), deadline_s=2.0)
    assert isinstance(done.end.error, DeadlineExceeded) and done.took_s == 2.0


def test_at_the_deadline_the_answer_that_is_there_is_given():
    slow = {"small": 1.0, "large": 50.0}
    done = run(cascade(Never()), lambda call: Said("here", wait_s=slow[call.tier]), deadline_s=5.0)
    assert (done.answer, done.took_s, done.end.report["limited_by"]) == ("here", 5.0, "deadline_s")


def test_after_the_deadline_nobody_else_is_asked():
    done = run(cascade(Always()), lambda call: Said(wait_s=9.0), deadline_s=2.0)
    assert [call.tier for call in done.calls] == ["small"] and isinstance(done.end.error, DeadlineExceeded)


def test_a_tiers_own_failure_stays_its_own():
    done = run(plain(), lambda call: Said(error=NoReplica("large", "it is down")), max_cost_usd=1e9)
    assert isinstance(done.end.error, NoReplica)


@given(
    limit=st.floats(0, 5e4),
    lengths=st.lists(st.integers(1, 400), min_size=6, max_size=6),
    fails=st.sets(st.integers(0, 5)),
    first=st.sampled_from([("small",), ("medium",), ("small", "medium")]),
    sure=st.booleans(),
)
def test_no_mix_of_answers_costs_more_than_allowed(limit, lengths, fails, first, sure):
    made = iter(range(6))

    def script(call):
        i = next(made)
        return Said(error=NoReplica(call.tier, "down")) if i in fails else "word " * lengths[i]

    done = run(cascade(Always() if sure else Never(), first), script, max_cost_usd=limit)
    spent = sum(RUNGS[["small", "medium", "large"].index(tier)].cost(*used) for _, tier, *used in done.ledger)
    assert spent <= limit + 1e-6


def a_call(name="a", tier="large", **body):
    return Call(name, tier, "attempt", {**BODY, "max_tokens": 2, **body})


WORST = LARGE + 2 * 80


@pytest.mark.parametrize(
    "became, left",
    [
        ("cancelled", 1000.0 - WORST),  # nobody says what it cost
        ("failed", 1000.0),
        ("partial", 1000.0 - WORST),  # more of it is to come
        ("answered", 1000.0 - 20.0 * 3 - 80),
    ],
)
def test_what_is_set_aside_is_settled(became, left):
    limiter, step = FlowLimiter(ClientLimits(max_cost_usd=LARGE + 1000.0), RUNGS), Step((a_call(),))
    limiter.allow(step)
    replies = {
        "failed": Reply(a_call(), error=NoReplica("large", "down")),
        "partial": Reply(a_call(), usage=Usage(3, 1), partial=True),
        "answered": Reply(a_call(), usage=Usage(3, 1)),
    }
    if became == "cancelled":
        limiter.allow(Step((), ("a",)))
    else:
        limiter.receive([replies[became]], step)
    assert limiter.budget.left_usd == pytest.approx(LARGE + left)


def test_what_ran_at_the_deadline_is_cancelled_before_anything_else_is_waited_for():
    limiter, step = FlowLimiter(ClientLimits(deadline_s=2.0), RUNGS), Step((a_call("a"), a_call("b")))
    limiter.allow(step)
    limiter.receive([Reply(a_call("a"), at_s=1.0)], step)
    assert [reply.call.id for reply in limiter.receive([], step)] == ["b"]
    assert limiter.allow(Step(()))[0].cancel == ("b",)


def test_a_flows_own_sooner_time_is_not_the_deadline():
    limiter, step = FlowLimiter(ClientLimits(deadline_s=9.0), RUNGS), Step((a_call(),), until_s=2.0)
    assert limiter.allow(step)[0].until_s == 2.0
    assert limiter.receive([], step) == [] and not limiter.deadline_passed and limiter.error is None


def test_outcomes_that_were_put_off_are_told_at_the_end():
    def flow():
        yield Step((a_call("a"),))
        yield Step((a_call("b"),), outcomes={"a": "low confidence"})
        return Commit("a", outcomes={"b": "failed"})

    done = run(flow(), max_cost_usd=LARGE + 100.0)
    assert done.outcomes == {"a": "low confidence"} and [call.id for call in done.calls] == ["a"]


# -- the field ----------------------------------------------------------------------------------------------------------


def parsed(stepdown, path="chat/completions", **more):
    body = {"model": "auto", **BODY, "stepdown": stepdown, **more}
    return wire.parse(path, json.dumps(body).encode())


def test_the_field_is_read_and_taken_out():
    asked = parsed({"max_cost_usd": 0.5, "deadline_s": 3})
    assert asked.limits == ClientLimits(max_cost_usd=0.5, deadline_s=3.0) and "stepdown" not in asked.body


@pytest.mark.parametrize("nothing", [None, {}])
def test_an_empty_field_is_no_limit(nothing):
    asked = parsed(nothing)
    assert asked.limits is None and "stepdown" not in asked.body


@pytest.mark.parametrize(
    "stepdown, said",
    [
        ({"max_cost": 1}, "`stepdown.max_cost`"),
        ({"max_cost_usd": "1"}, "`stepdown.max_cost_usd`"),
        ({"max_cost_usd": -1}, "`stepdown.max_cost_usd`"),
        ({"deadline_s": 0}, "`stepdown.deadline_s`"),
        ({"max_subtasks": 1.5}, "`stepdown.max_subtasks`"),
        ([1], "`stepdown`"),
        ("cheap", "`stepdown`"),
    ],
)
def test_what_cannot_be_meant_is_refused(stepdown, said):
    with pytest.raises(BadRequest) as raised:
        parsed(stepdown)
    assert said in str(raised.value) and "max_subtasks, max_cost_usd, deadline_s" in str(raised.value)


@pytest.mark.parametrize("more", [{"n": 2}, {"prompt": "x", "messages": None}])
def test_limits_are_for_one_chat_answer(more):
    path = "completions" if "prompt" in more else "chat/completions"
    body = {"model": "auto", **BODY, **more, "stepdown": {"deadline_s": 3}}
    if path == "completions":
        del body["messages"]
    with pytest.raises(BadRequest, match="one answer"):
        wire.parse(path, json.dumps(body).encode())


def test_two_sets_of_limits_are_both_kept():
    both = ClientLimits(max_subtasks=4, deadline_s=9.0).combined_with(ClientLimits(max_subtasks=6, max_cost_usd=1.0))
    assert both == ClientLimits(max_subtasks=4, deadline_s=9.0, max_cost_usd=1.0)
