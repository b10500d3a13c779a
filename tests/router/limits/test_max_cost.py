"""`max_cost_usd` of a request that is planned or hands work down: whatever anybody answers, it is never exceeded."""

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import Said, drive, ladder, told, words
from scripted import given as words_given

from router.client_options import ClientLimits
from router.config import Delegation
from router.delegate.gates import consider
from router.delegate.memory import Memory
from router.delegate.planned import delegate
from router.delegate.tool_mode import tool_mode
from router.errors import BudgetExceeded, NoReplica, TierFailed
from router.request.server_tools import DELEGATE
from router.request.token_bounds import PER_MESSAGE, PER_PROMPT
from router.types import Commit, Fail, Say, Usage

RUNGS = ladder(0.1, 0.3, 1.0)
TOP = RUNGS[-1]
SETTINGS = Delegation(
    mode="plan", min_input_tokens=20, offload_min_tokens=10, max_cost_ratio=20.0, min_saving=0.0, plan_prompt="plan {preview}"
)
MAP = {"plan": [{"each": "c1"}]}
LISTING = "Do each of these:\n" + "\n".join(f"{i}. say number {i} " + "word " * 200 for i in range(1, 9))
BODY = {"messages": [{"role": "user", "content": LISTING}]}
FIELDS = [{"name": "amount", "type": "string"}]


ERRORS = [NoReplica("x", "gone"), TierFailed("x", "broke"), TierFailed("x", "no", 400)]


def prompt(call):
    """Tokens of a prompt as a tier with a wordy template counts them."""
    return words_given(call) + PER_PROMPT + PER_MESSAGE * len(call.body["messages"])


def answers(text, call, **more):
    """One answer, cut where it must be, with what the tier counted."""
    most = call.body.get("max_tokens")
    made = " ".join(text.split()[:most])
    finish = "length" if most and words(text) > most else "stop"
    return Said(made, finish=finish, more={"usage": Usage(prompt(call), words(made))}, **more)


def paid(done):
    """USD of all calls. One that ran out of time or was given up may have written all it could; a failed one costs nothing."""
    made = {name: out for name, _, _, out in done.ledger}
    total = 0.0
    for call in done.calls:
        rung, said = next(rung for rung in RUNGS if rung.name == call.tier), done.said[call.id]
        ended = call.id in done.texts and said.wait_s <= (call.timeout_s or math.inf)
        if not (ended and said.error):
            total += rung.cost(prompt(call), made[call.id] if ended else call.body.get("max_tokens", rung.context))
    return total


def run(flow, script):
    said = {}

    def heard(call):
        found = script(call)
        said[call.id] = found if isinstance(found, Said) else answers(found, call)
        return said[call.id]

    done = drive(flow, heard)
    done.said = said
    return done


def planned(limit, script, settings=SETTINGS, body=BODY):
    memory, route = Memory(), lambda text, hint: "small"
    considered = consider(body, RUNGS, settings, memory, route, lambda text: True)
    return run(delegate(body, RUNGS, settings, route, lambda *_: None, memory, considered, max_usd=limit), script)


def plain_usd(answer=480):
    """What the request costs as it was sent: eight parts of 60 tokens are expected."""
    return TOP.cost(TOP.prompt_tokens(BODY), answer)


SUBTASKS = st.lists(
    st.fixed_dictionaries(
        {"prompt": st.sampled_from(["same", "a", "say number 3 " + "w " * 90])},
        optional={
            "each": st.just("c1"),
            "context": st.sampled_from([["c1"], ["c1.2-5"], ["t1"]]),
            "depends_on": st.just(["t1"]),
            "max_tokens": st.integers(16, 2048),
            "output_fields": st.just(FIELDS),
            "kind": st.just("extract"),
        },
    ),
    max_size=6,
)
PLANS = st.one_of(
    st.just(MAP),
    st.just({**MAP, "merge": True}),
    st.builds(lambda plan, more: {"plan": plan} | more, SUBTASKS, st.sampled_from([{}, {"merge": True}, {"answer": "A {{t1}}"}])),
)


def anything(source, plan):
    """Tiers that fail, hang, ramble, answer nothing."""

    def script(call):
        if call.role in ("plan", "repair") and source.random() < 0.8:
            return answers(json.dumps(plan), call)
        error = source.choice([None] * 6 + ERRORS)
        text = "w " * source.choice([0, 1, 50, 5_000])
        wait = source.choice([0.0, 0.1, 0.5, 30.0])
        return Said("", wait, error) if error else answers(text, call, wait_s=wait)

    return script


@pytest.mark.slow
@given(plan=PLANS, share=st.floats(0, 4), seed=st.integers(0, 10**6), asked=st.sampled_from([None, 30, 2_000]))
def test_no_plan_makes_a_request_cost_more_than_it_may(plan, share, seed, asked):
    body = BODY if asked is None else {**BODY, "max_tokens": asked}
    limit = share * plain_usd()
    done = planned(limit, anything(random.Random(seed), plan), body=body)
    assert paid(done) <= limit + 1e-6
    assert set(done.outcomes) == {call.id for call in done.calls}


@pytest.mark.slow
@given(share=st.floats(0, 4), seed=st.integers(0, 10**6), plans=st.lists(PLANS, min_size=1, max_size=2))
def test_no_tool_call_makes_a_request_cost_more_than_it_may(share, seed, plans):
    source, settings = random.Random(seed), Delegation(mode="tool", max_cost_ratio=20.0, offload_min_tokens=10)

    def script(call):
        if call.role == "turn" and source.random() < 0.7:
            arguments = json.dumps(source.choice(plans))
            made = {"id": "c", "type": "function", "function": {"name": DELEGATE, "arguments": arguments}}
            said = answers("w " * source.choice([0, 400]), call)
            return Said(said.text, more={**said.more, "tool_calls": (made,)})
        return anything(source, {})(call)

    limit = share * plain_usd()
    limits = ClientLimits(max_cost_usd=limit)
    flow = tool_mode(BODY, RUNGS, settings, limits, lambda text, hint: "small", lambda *_: None, Memory())
    assert paid(run(flow, script)) <= limit + 1e-6


@pytest.mark.parametrize("text", ["no plan", '{"plan": [{"each": "c9"}]}', '{"plan": []}', "w " * 3_000])
@pytest.mark.parametrize("share", [1.0, 1.05, 1.2, 1.5, 3.0])
def test_a_bad_plan_leaves_the_plain_answer_within_the_limit(text, share):
    done = planned(share * plain_usd(), lambda call: text if call.role != "final" else "w " * 480)
    assert isinstance(done.end, Commit) and words(done.answer) == 480 and not done.of("subtask")
    assert bool(done.of("plan")) == (share > 1.05)


def test_where_the_plain_answer_is_beyond_the_limit_a_plan_may_still_be_within():
    done = planned(0.5 * plain_usd(), lambda call: json.dumps(MAP) if call.role == "plan" else "fine")
    assert isinstance(done.end, Say) and not done.of("final")
    assert done.end.text == "\n".join(f"{i}. fine" for i in range(1, 9))


def test_a_bad_plan_beyond_the_plain_answer_ends_in_what_can_be_paid():
    done = planned(plain_usd(200), lambda call: "no" if call.role != "final" else "w " * 480)
    assert done.of("plan") and isinstance(done.end, Commit) and 64 <= words(done.answer) < 200
    done = planned(plain_usd(60), lambda call: "no")
    assert done.of("plan") and isinstance(done.end, Fail) and isinstance(done.end.error, BudgetExceeded)


def test_a_limit_that_is_wide_changes_nothing():
    script = lambda call: json.dumps(MAP) if call.role == "plan" else "fine"  # noqa: E731
    bodies = [[(call.id, call.tier, call.body) for call in planned(usd, script).calls] for usd in (None, 1e9)]
    assert bodies[0] == bodies[1] and len(bodies[0]) == 9


def test_a_part_that_fails_leaves_money_for_the_final_call():
    def script(call):
        if call.role == "plan":
            return json.dumps(MAP)
        return Said(error=TierFailed(call.tier, "broke")) if "number 3" in told(call) and call.role == "subtask" else "w " * 60

    done = planned(0.9 * plain_usd(), script)
    assert isinstance(done.end, Commit) and done.end.report["delegation"] == "partial"
    assert paid(done) <= 0.9 * plain_usd()
