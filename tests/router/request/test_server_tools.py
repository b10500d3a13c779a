"""Server tools without a server: reading, tool mode in virtual time, what is kept for the client's return, handing up."""

import json
import random
from dataclasses import replace

import pytest
from fuzzing import ANY
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import Said, answered_at_once, drive, ladder, told

from router.cascade.flow import WHOLE, AcceptAny, Cascade
from router.choose_flow import one_call
from router.client_options import ClientLimits
from router.config import Delegation, Escalation
from router.delegate.hidden_turns import HiddenTurns, with_recalled
from router.delegate.memory import Memory
from router.delegate.tool_mode import tool_mode
from router.errors import BadRequest, NoReplica, RequestFailed, TierFailed, ToolNameConflict
from router.request import server_tools, wire
from router.types import Call, Commit, Fail, Reply, Request, Say, Usage

DELEGATE, ESCALATE = {"type": "stepdown:delegate"}, {"type": "stepdown:escalate"}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
RUNGS = ladder(1e-6, 5e-6, 5e-5)
ASK = {"role": "user", "content": "count the animals"}
PLAN = {"plan": [{"prompt": "count cats"}, {"prompt": "count dogs", "depends_on": ["t1"]}]}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "required": ["a"]}}}


def parsed(**fields):
    return wire.parse("chat/completions", json.dumps({"model": "auto", "messages": [ASK], **fields}).encode()).body


def called(name, arguments, id="c1"):
    made = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"id": id, "type": "function", "function": {"name": name, "arguments": made}}


def delegates(plan=PLAN, *more, text="", wait_s=0.1) -> Said:
    return Said(text, wait_s, finish="tool_calls", more={"tool_calls": (called("stepdown_delegate", plan), *more)})


def play(*turns, body=None, work=lambda call: f"did {told(call)}", limits=None, rungs=RUNGS, **changes):
    """Tool mode against turns of the large tier, the last one again and again."""
    said = iter([*turns, *[turns[-1]] * 9])
    settings = Delegation(**{"mode": "tool", "max_cost_ratio": 50.0, **changes})
    given = server_tools.without({"messages": [ASK], "tools": [WEATHER], **(body or {})})
    flow = tool_mode(given, rungs, settings, limits or ClientLimits(), lambda text, hint: "small", lambda *_: None, Memory())
    return drive(flow, lambda call: next(said) if call.role == "turn" else work(call))


# -- reading --------------------------------------------------------------------------------------------------------------


def test_without_server_tools_the_body_is_the_same_object():
    for body in ({"model": "auto"}, {"tools": []}, {"tools": [WEATHER], "tool_choice": "auto"}, {"tools": None}):
        assert server_tools.without(body) is body


def test_with_the_last_tool_all_that_is_about_tools_goes():
    body = parsed(tools=[DELEGATE, ESCALATE], tool_choice="auto", parallel_tool_calls=False, seed=1)
    assert server_tools.without(body) == {"model": "auto", "messages": [ASK], "seed": 1}
    assert wire.forwarded(body, "small") == {"model": "small", "messages": [ASK], "seed": 1}
    assert wire.needs(body) == frozenset()


def test_the_clients_tools_stay():
    body = parsed(tools=[DELEGATE, WEATHER], tool_choice="required")
    assert wire.forwarded(body, "small") == {"model": "small", "messages": [ASK], "tools": [WEATHER], "tool_choice": "required"}
    assert wire.needs(body) == {"tools", "tool_choice"}
    assert "stepdown" not in wire.facts(Request("chat/completions", body)).counted


@pytest.mark.parametrize("where", ["tools", "functions"])
def test_names_that_are_ours_conflict(where):
    with pytest.raises(ToolNameConflict):
        parsed(**{where: [{"type": "function", "name": "stepdown_y", "function": {"name": "stepdown_x"}}]})


@pytest.mark.parametrize(
    "parameters", [{"max_subtasks": 1.5}, {"max_subtasks": "3"}, {"deadline_s": 0}, {"max_cost_usd": -1}, {"x": 1}, []]
)
def test_limits_that_are_none_are_refused(parameters):
    with pytest.raises(BadRequest, match="max_subtasks, max_cost_usd, deadline_s"):
        parsed(tools=[{**DELEGATE, "parameters": parameters}])


def test_limits_only_tighten():
    ours = Delegation(max_subtasks=8, deadline_s=60)
    assert ClientLimits(max_subtasks=64, deadline_s=999).applied_to(ours) == ours
    assert ClientLimits(max_subtasks=1, deadline_s=2).applied_to(ours) == ours.model_copy(
        update={"max_subtasks": 1, "deadline_s": 2}
    )


kinds = st.sampled_from(["stepdown:delegate", "stepdown:escalate", "stepdown:x", "function", "", None, 7])


tool = st.fixed_dictionaries({"type": kinds}, optional={"parameters": ANY, "function": ANY})


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(tools=st.lists(tool | ANY), choice=ANY)
def test_whatever_is_sent_is_read_or_refused(tools, choice):
    try:
        body = parsed(tools=tools, tool_choice=choice)
        server_tools.check_mode(body, "off")
    except RequestFailed:
        return
    server_tools.offered(body)
    assert not any(server_tools.is_ours(tool) for tool in wire.forwarded(body, "small").get("tools") or [])


# -- tool mode ------------------------------------------------------------------------------------------------------------


def test_a_delegation_and_an_answer():
    run = play(delegates(), "so: {{t1}}, {{t2}}")
    assert run.answer == "so: {{t1}}, {{t2}}" and isinstance(run.end, Commit)
    assert run.end.splice == {"t1": "did count cats", "t2": "did count dogs"}
    assert [m["role"] for m in run.end.hidden] == ["assistant", "tool"]
    assert run.outcomes == {"turn": "delegated", "t1": "accepted", "t2": "accepted", "turn-2": "accepted"}
    assert run.end.report | {"delegation": "done", "mode": "tool", "subtasks": 2, "ok": 2, "failed": 0} == run.end.report


def test_without_a_call_nothing_is_hidden_and_nothing_is_spliced():
    run = play("plain {{t1}}")
    assert (run.end.hidden, run.end.splice, len(run.calls)) == ((), {}, 1)


@pytest.mark.parametrize("max_plans, holds", [(1, [WHOLE, 1]), (2, [WHOLE, WHOLE])])
def test_a_turn_is_held_whole_while_it_may_yet_delegate(max_plans, holds):
    run = play(delegates(), "done", max_plans=max_plans)
    assert [call.hold for call in run.of("turn")] == holds


def test_what_the_tier_sees():
    run = play(delegates(), "done", max_plans=1)
    first, second = (call.body for call in run.of("turn"))
    ours = first["tools"][1]["function"]
    assert (ours["name"], ours["strict"], first["parallel_tool_calls"]) == ("stepdown_delegate", True, False)
    assert "no handles" in ours["description"] and "pays" in ours["description"]
    assert second["tools"] == [WEATHER] and "parallel_tool_calls" not in second
    assert [m["role"] for m in second["messages"]] == ["user", "assistant", "tool"]


def test_the_clients_wish_for_parallel_calls_is_kept():
    assert play("x", body={"parallel_tool_calls": True}).calls[0].body["parallel_tool_calls"] is True


def test_arguments_that_are_no_json_do_not_stay_in_the_chat():
    run = play(delegates("{oops"), "plain")
    made = run.of("turn")[1].body["messages"][1]["tool_calls"][0]["function"]
    assert made == {"name": "stepdown_delegate", "arguments": "{}"}


@pytest.mark.parametrize("arguments", [PLAN, {**PLAN, "plan": json.dumps(PLAN["plan"])}, json.dumps(PLAN, indent=4)])
def test_arguments_are_read_as_parsers_give_them(arguments):
    call = {"id": "c1", "function": {"name": "stepdown_delegate", "arguments": arguments}}
    run = play(Said("", finish="tool_calls", more={"tool_calls": (call,)}), "done")
    assert run.end.report["ok"] == 2


@pytest.mark.parametrize("arguments", [None, 7, "", "[]", '{"plan": "["}', '{"plan": "' + "[" * 9999 + '"}', {"plan": None}])
def test_arguments_that_are_no_plan_cost_a_correction_and_no_more(arguments):
    call = {"function": {"name": "stepdown_delegate", "arguments": arguments}}
    run = play(Said("", finish="tool_calls", more={"tool_calls": (call,)}), "done")
    assert run.answer == "done" and run.end.report["delegation"] == "plan_invalid"


def test_workers_get_no_tools_and_the_systems_own_prompt():
    run = play(delegates(), "x", body={"messages": [{"role": "system", "content": "be kind"}, ASK]})
    assert all("tools" not in call.body and call.body["messages"][0]["content"] == "be kind" for call in run.of("subtask"))


@pytest.mark.parametrize("text, calls", [("done", 2), ('{"a": 1}', 1)])
def test_json_is_asked_for_in_a_call_of_its_own_unless_it_came_by_itself(text, calls):
    run = play(text, '{"a": 2}', body={"response_format": SCHEMA})
    first, *rest = run.of("turn")
    assert "response_format" not in first.body and len(rest) == calls - 1
    assert all(call.body["response_format"] == SCHEMA and call.body["tool_choice"] == "none" for call in rest)
    assert json.loads(run.answer)["a"] in (1, 2) and run.end.splice == {}


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_no_mix_has_two_grammars_in_one_call_or_costs_more_than_it_may(seed):
    """Random turns, workers and limits: it ends, the books agree, no call has both tools to call and a schema."""
    dice = random.Random(seed)
    texts = ["text", "", '{"a": 1}', "{{t1}}", '{"a"']
    plans = [PLAN, {"plan": []}, {"plan": [{"prompt": "other"}]}, "{", {"plan": [{"each": "c9"}]}, {"plan": [{}] * 99}]

    def turn():
        kind = dice.random()
        if kind < 0.4:
            own = [called("weather", {}, "w")] if dice.random() < 0.3 else []
            return delegates(dice.choice(plans), *own, text=dice.choice(texts))
        if kind < 0.5:
            return Said(error=dice.choice([TierFailed("large", "no", 400), TierFailed("large", "no"), NoReplica("large", "x")]))
        if kind < 0.65:
            return Said(dice.choice(texts), finish="tool_calls", more={"tool_calls": (called("weather", {}),)})
        return Said(dice.choice(texts), dice.choice([0.1, 30.0]), finish=dice.choice(["stop", "length"]))

    def work(call: Call):
        failing = [Said(""), Said("cut", finish="length"), Said(error=NoReplica("x", "y")), Said(wait_s=50)]
        return dice.choice([Said("fine"), *failing])

    wants_json, own = dice.random() < 0.5, dice.random() < 0.7
    body = {"tools": [WEATHER] if own else [], **({"response_format": SCHEMA} if wants_json else {})}
    limits = ClientLimits(max_cost_usd=dice.choice([None, 0.09, 0.2]), deadline_s=dice.choice([None, 5.0]))
    run = play(*[turn() for _ in range(9)], body=body, work=work, limits=limits, max_plans=dice.choice([1, 2]))
    turns = run.of("turn")
    assert len(turns) <= 8 and len(run.calls) <= 16 + 8
    for call in turns:
        assert not (call.body.get("response_format") and call.body.get("tools") and call.body.get("tool_choice") != "none")
    assert set(run.outcomes) == {call.id for call in run.calls}
    assert isinstance(run.end, Commit | Fail | Say)
    if isinstance(run.end, Commit) and wants_json:
        assert run.end.splice == {}
    if limits.deadline_s:
        assert run.took_s <= limits.deadline_s + 0.2


def test_a_first_turn_that_the_clients_limit_does_not_pay_for_is_not_asked():
    run = play(delegates(), "done", body={"max_tokens": 40}, limits=ClientLimits(max_cost_usd=0.002))
    assert isinstance(run.end, Fail) and run.end.error.code == "budget_exceeded" and not run.calls


@pytest.mark.parametrize("share, worked", [(1.7, False), (4.0, True)])
def test_work_begins_only_where_the_answer_can_still_be_paid_for(share, worked):
    turn = play("plain", body={"max_tokens": 100}).calls[0]
    most = Usage(RUNGS[-1].prompt_tokens(turn.body), 100)
    limits = ClientLimits(max_cost_usd=share * RUNGS[-1].paid(most))
    first = replace(delegates(), more={**delegates().more, "usage": most})
    run = play(first, "done", body={"max_tokens": 100}, limits=limits, max_plans=1)
    assert bool(run.of("subtask")) == worked and run.answer == "done"
    assert run.of("turn")[-1].body["max_tokens"] <= 100
    assert run.end.report["delegation"] == ("done" if worked else "not_worth_it")


def test_a_backend_that_refuses_strict_is_asked_without():
    def says(call):
        if call.role != "turn":
            return "done"
        tools = call.body.get("tools") or []
        if any(tool["function"].get("strict") for tool in tools):
            return Said(error=TierFailed("large", "strict is unknown", 400))
        return delegates() if len(call.body["messages"]) == 1 else "fine"

    flow = tool_mode(
        {"messages": [ASK]},
        RUNGS,
        Delegation(mode="tool", max_cost_ratio=50),
        ClientLimits(),
        lambda *_: "small",
        lambda *_: None,
        Memory(),
    )
    run = drive(flow, says)
    assert run.answer == "fine" and run.end.report["delegation"] == "done" and len(run.of("turn")) == 3


def test_a_turn_may_show_its_thoughts_only_where_it_is_the_answer_for_sure():
    """One that can call our function, offered now or before, may turn out to be no answer."""

    def says(call):
        tools = call.body.get("tools") or []
        return Said(error=TierFailed("large", "no such tool", 400)) if any(map(server_tools.calls_ours, tools)) else "fine"

    limits = [Delegation(mode="tool", max_cost_ratio=50, max_plans=1), ClientLimits()]
    rest = [lambda *_: "small", lambda *_: None, Memory()]
    refused = drive(tool_mode({"messages": [ASK]}, RUNGS, *limits, *rest), says)
    assert [call.committed for call in refused.of("turn")] == [False, False, True]
    turns = iter([delegates(), "fine"])
    after_work = drive(
        tool_mode({"messages": [ASK]}, RUNGS, *limits, *rest), lambda c: next(turns) if c.role == "turn" else "done"
    )
    assert [(call.hold == 1, call.committed) for call in after_work.of("turn")] == [(False, False), (True, False)]


def test_the_largest_tier_down_after_the_work_was_done():
    run = play(delegates(), Said(error=NoReplica("large", "gone")), work=lambda call: "from small")
    assert isinstance(run.end, Commit) and run.end.report["delegation"] == "done"
    assert run.calls[-1].tier == "large" and run.calls[-1].role == "final" and len(run.calls[-1].body["messages"]) == 3


# -- kept for the client's return -----------------------------------------------------------------------------------------

EXCHANGE = ({"role": "assistant", "content": None, "tool_calls": []}, {"role": "tool", "tool_call_id": "c1", "content": "{}"})


def returned(*states, last="tool"):
    calls = [{"id": f"call_sd_{state}_{n}", "function": {}} for n, state in enumerate(states)]
    messages = [ASK, {"role": "assistant", "content": None, "tool_calls": calls}, {"role": last, "content": "x"}]
    return Request("chat/completions", {"messages": messages})


def test_an_exchange_is_put_back_before_its_answer_once():
    hidden = HiddenTurns()
    state = hidden.keep("key", EXCHANGE, {"t1": "cats"}, "large")
    asked, recalled = hidden.recall("key", returned(state, state, state))
    assert asked.body["messages"] == [ASK, *EXCHANGE, *returned(state, state, state).body["messages"][1:]]
    assert (recalled.state, recalled.tier, recalled.splices) == ("hit", "large", {"t1": "cats"})


@pytest.mark.parametrize(
    "owner, wait_s, state", [("key", 1799, "hit"), ("key", 1800, "miss"), ("other", 0, "miss"), ("", 0, "miss")]
)
def test_it_is_there_for_half_an_hour_and_for_one_key(owner, wait_s, state):
    now = [0.0]
    hidden = HiddenTurns(clock=lambda: now[0])
    kept = hidden.keep("key", EXCHANGE, {}, "large")
    now[0] = wait_s
    asked, recalled = hidden.recall(owner, returned(kept))
    assert recalled.state == state and (len(asked.body["messages"]) == 5) == (state == "hit")


def test_a_conversation_that_goes_on_keeps_it():
    now = [0.0]
    hidden = HiddenTurns(clock=lambda: now[0])
    kept = hidden.keep("key", EXCHANGE, {}, "large")
    for now[0] in (1_000, 2_000, 3_000):
        assert hidden.recall("key", returned(kept))[1].state == "hit"


def test_it_is_bounded_in_number_and_in_bytes():
    hidden = HiddenTurns(most=10, most_bytes=2_000)
    for i in range(50):
        last = hidden.keep("key", EXCHANGE, {"t1": "x" * i}, "large")
    assert len(hidden.known) <= 10 and hidden.bytes == sum(kept.bytes for kept, _ in hidden.known.values()) <= 2_000
    assert hidden.recall("key", returned(last))[1].state == "hit"
    hidden.keep("key", EXCHANGE, {"t1": "x" * 5_000}, "large")
    assert hidden.bytes == 0 and not hidden.known


@pytest.mark.parametrize("calls", [None, 7, "x", [7, None, {}, {"id": None}, {"id": 3}, {"id": "call_1"}], {"id": "call_sd_x_0"}])
def test_what_is_no_id_of_ours_is_left_alone(calls):
    asked = Request("chat/completions", {"messages": [ASK, {"role": "assistant", "content": "x", "tool_calls": calls}]})
    assert HiddenTurns().recall("key", asked) == (asked, None)


def test_an_id_in_a_message_that_is_not_the_assistants_means_nothing():
    hidden = HiddenTurns()
    state = hidden.keep("key", EXCHANGE, {}, "large")
    asked = Request("chat/completions", {"messages": [{**ASK, "tool_calls": [{"id": f"call_sd_{state}_0"}]}]})
    assert hidden.recall("key", asked) == (asked, None)


@pytest.mark.parametrize("body, splices", [({}, {"t1": "cats"}), ({"response_format": SCHEMA}, {})])
def test_later_answers_may_refer_to_what_was_kept_but_json_may_not(body, splices):
    hidden = HiddenTurns()
    asked = returned(hidden.keep("key", EXCHANGE, {"t1": "cats"}, "large"))
    asked, recalled = hidden.recall("key", Request("chat/completions", {**asked.body, **body}))
    run = drive(with_recalled(one_call("large", asked.body, {}), recalled), lambda call: "{{t1}}")
    assert run.end.splice == splices and run.end.report["state"] == "hit"


def test_a_failure_tells_the_state_too():
    _, recalled = HiddenTurns().recall("key", returned("gone"))
    run = drive(with_recalled(one_call("large", {"messages": [ASK]}, {}), recalled), lambda call: Said(error=NoReplica("x", "y")))
    assert isinstance(run.end, Fail) and run.end.report["state"] == "miss"


# -- handing up -----------------------------------------------------------------------------------------------------------

NAMES = ["small", "medium", "large"]
HARD = {"tool_calls": (called("stepdown_escalate", {"reason": "x"}),), "finish_reason": "tool_calls"}


def climb(answers, **more):
    """The cascade against tier -> fields of its reply. Returns (end, the calls made)."""
    cascade = Cascade({"messages": [ASK]}, NAMES, AcceptAny(), Escalation(), False, {"small", "medium"}, scored=False, **more)
    end, steps = answered_at_once(cascade.run(["small"]), lambda call: Reply(call, **answers[call.tier]))
    return end, [call for step in steps for call in step.start]


def test_calling_it_sends_a_request_up_once_a_tier():
    end, calls = climb({"small": HARD, "medium": HARD, "large": {"text": "right", "finish_reason": "stop"}})
    assert end.call_id == "final-large" and end.outcomes["attempt-small"] == end.outcomes["attempt-medium"] == "too hard"
    shown = [[tool["function"]["name"] for tool in call.body.get("tools") or []] for call in calls]
    assert shown == [["stepdown_escalate"], ["stepdown_escalate"], []]
    assert [call.hold for call in calls] == [WHOLE, WHOLE, 1]


def test_where_nobody_calls_it_the_first_answer_stands():
    end, calls = climb({"small": {"text": "right", "finish_reason": "stop"}})
    assert end.call_id == "attempt-small" and len(calls) == 1 and "logprobs" not in calls[0].body


def test_with_all_above_down_the_failure_is_told():
    end, _ = climb({"small": HARD, "medium": {"error": NoReplica("m", "x")}, "large": {"error": NoReplica("l", "x")}})
    assert isinstance(end, Fail) and end.error.status == 503
