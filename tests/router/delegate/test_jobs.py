"""One plan's jobs: what a call may cost, how long it may take, where a bad answer goes, what a stop leaves."""

from dataclasses import replace

import pytest
from scripted import ladder, words

from router.config import Delegation
from router.delegate.blocks import offload
from router.delegate.jobs import Jobs
from router.delegate.memory import Memory
from router.delegate.plans import MAX_TOKENS, Job, Subtask
from router.delegate.shared import Shared
from router.errors import NoReplica, TierBusy, TierFailed, TierMisconfigured, WindowExceeded
from router.limits.delegation_budget import Budget, Rung
from router.types import Reply, Usage

FIELDS = [{"name": "amount", "type": "string"}]
RUNGS = ladder(0.1, 0.3, 1.0)


def jobs_for(*tasks, usd=1e6, calls=32, rungs=RUNGS, judge=lambda *_: None, special=(), more=None, **settings):
    """Jobs t1, t2, ... of these subtasks, none begun."""
    settings = Delegation(mode="plan", offload_min_tokens=10, **settings)
    body = {"messages": [{"role": "user", "content": "Do each:\n1. say one word here\n2. say two words here"}]}
    shared = Shared(body, rungs, settings, lambda *_: "small", judge, Memory(), Budget(usd, calls), special, more or {})
    todo = [Job(f"t{n}", Subtask(**task)) for n, task in enumerate(tasks, 1)]
    return Jobs(shared, offload(body["messages"], words, 10, 8), todo)


def replied(jobs, call, text="fine", **more):
    jobs.receive(Reply(call, text=text, usage=Usage(10, words(text)), **more))
    return jobs.states[call.id.split("-")[0]]


def test_a_call_takes_no_longer_than_it_may_and_than_half_of_the_time_that_is_left():
    for deadline_s, at_s, allowed in ((100.0, 0.0, 3.0), (10.0, 6.0, 1.25)):
        jobs = jobs_for({"prompt": "a"}, call_timeout_s=3.0, deadline_s=deadline_s, final_reserve=0.15)
        jobs.shared.now_s = at_s
        (call,) = jobs.start()
        assert call.timeout_s == pytest.approx(allowed)


def test_an_answer_is_no_longer_than_the_window_leaves_room_for():
    rungs = [Rung("small", 200, 0.1, 0.4, words), *RUNGS[1:]]
    (call,) = jobs_for({"prompt": "a"}, rungs=rungs, subtask_max_tokens=512).start()
    assert call.tier == "small" and 64 <= call.body["max_tokens"] < 200 - words(str(call.body["messages"][-1]["content"]))


def test_the_last_of_the_money_buys_a_short_answer_while_nobody_else_has_some():
    prompt = {"prompt": "a " * 40}
    whole = jobs_for(prompt)
    (call,) = whole.start()
    given_usd = whole.shared.budget.reserved[call.id] - 0.4 * call.body["max_tokens"]
    (short,) = jobs_for(prompt, usd=given_usd + 0.4 * 100).start()
    assert short.body["max_tokens"] == 100 and call.body["max_tokens"] > 100
    assert jobs_for(prompt, usd=given_usd + 0.4 * 10).start() == ()
    both = jobs_for({"prompt": "b"}, prompt, usd=given_usd + 0.4 * 612)
    first = both.start()
    assert len(first) == 1, "the second waits for what the first gives back"
    replied(both, first[0])
    (second,) = both.start()
    assert second.body["max_tokens"] > 100


def test_a_call_that_there_is_no_money_for_keeps_no_name_and_one_call_is_kept_for_the_end():
    jobs = jobs_for({"prompt": "a"}, calls=1)
    assert jobs.start() == () and jobs.shared.call_ids == set() and jobs.shared.budget.reserved == {}


@pytest.mark.parametrize("kind, needs", [("extract", True), ("answer", True), ("draft", False)])
def test_evidence_is_asked_for_where_the_settings_say_so(kind, needs):
    jobs = jobs_for({"prompt": "a", "kind": kind, "context": ["c1"], "output_fields": FIELDS})
    (call,) = jobs.start()
    evidence = ', "evidence": "never said"' if needs else ""
    state = replied(jobs, call, '{"status": "ok", "amount": "5"' + evidence + "}")
    assert (state.status, state.problem, state.grounded) == (("pending", "not_grounded", False) if needs else ("ok", "", None))


def test_what_a_worker_is_told_is_harmless_and_has_what_every_worker_gets():
    jobs = jobs_for({"prompt": "say <|weird|>"}, special=("<|weird|>",), more={"logprobs": True})
    (call,) = jobs.start()
    assert call.body["logprobs"] is True and "<|weird|>" not in str(call.body["messages"])


@pytest.mark.parametrize(
    "problem, reply",
    [
        ("empty", {"text": " \n"}),
        ("truncated", {"finish_reason": "length"}),
        ("timeout", {"error": NoReplica("small", "gone")}),
        ("backend_error", {"error": TierFailed("small", "slow down", 429)}),
        ("backend_error", {"error": TierFailed("small", "broke", 500)}),
        ("request_refused", {"error": TierFailed("small", "bad field", 400)}),
        ("backend_error", {"error": TierMisconfigured("small", "check its key")}),
        ("busy", {"error": TierBusy("small", "it is full")}),
    ],
)
def test_a_failure_is_mended_where_it_may_be_then_goes_up_once_and_no_more(problem, reply):
    jobs, tiers = jobs_for({"prompt": "a"}), []
    while calls := jobs.start():
        tiers.append(calls[0].tier)
        state = replied(jobs, calls[0], **{"text": "x", **reply})
        assert state.problem == problem and len(tiers) < 9
    same = [] if problem in ("request_refused", "busy") else ["small"]
    assert tiers == ["small", *same, "medium"] and (state.status, state.code) == ("failed", problem)


@pytest.mark.parametrize(("windows", "asked"), [((500, 900), ["small", "medium"]), ((500, 500), ["small"])])
def test_a_prompt_that_exceeds_a_window_goes_to_a_wider_one_if_there_is_one(windows, asked):
    jobs, tiers = jobs_for({"prompt": "a"}), []
    shared = jobs.shared
    shared.ladder = [replace(rung, context=size) for rung, size in zip(shared.ladder, windows, strict=False)]
    while calls := jobs.start():
        tiers.append(calls[0].tier)
        state = replied(jobs, calls[0], error=WindowExceeded(calls[0].tier))
    assert tiers == asked and (state.status, state.code) == ("failed", "too_long")


@pytest.mark.parametrize("reply", [{"refusal": "no"}, {"finish_reason": "content_filter"}])
def test_a_refusal_is_neither_asked_again_nor_shown(reply):
    jobs = jobs_for({"prompt": "a"})
    state = replied(jobs, jobs.start()[0], **reply)
    assert (state.status, state.code, state.clean) == ("failed", "refused", False) and jobs.start() == ()


def test_an_answer_that_was_cut_off_may_be_twice_as_long_up_to_the_most():
    for asked, again in ((100, 200), (1500, MAX_TOKENS)):
        jobs = jobs_for({"prompt": "a", "max_tokens": asked})
        replied(jobs, jobs.start()[0], finish_reason="length")
        assert jobs.start()[0].body["max_tokens"] == again


def test_a_thought_that_was_cut_is_no_empty_answer():
    """The same tier may bring it to its end with more room."""
    jobs = jobs_for({"prompt": "a", "max_tokens": 100})
    (call,) = jobs.start()
    state = replied(jobs, call, "", finish_reason="length", thought="hm")
    assert (state.problem, state.max_tokens) == ("truncated", 200)


def test_at_the_top_nobody_is_asked_how_sure_it_is():
    jobs = jobs_for({"prompt": "a"}, rungs=RUNGS[-1:], judge=lambda *_: "low confidence")
    assert replied(jobs, jobs.start()[0]).status == "ok"


def test_an_unsure_answer_still_goes_up_after_a_failure_did():
    jobs = jobs_for({"prompt": "a"}, judge=lambda tier, *_: "low confidence" if tier == "medium" else None)
    for said in ("", "", "unsure", "sure"):
        state = replied(jobs, jobs.start()[0], said)
    assert (state.text, state.tier, state.status) == ("sure", "large", "ok")


def test_what_was_asked_twice_is_shared_with_what_is_wrong_with_it():
    same = {"prompt": "a", "kind": "extract", "context": ["c1"], "output_fields": FIELDS}
    jobs = jobs_for(same, same, rungs=RUNGS[-1:])
    (call,) = jobs.start()
    replied(jobs, call, '{"status": "ok", "amount": "5", "evidence": "never said"}')
    assert [state.grounded for state in jobs.states.values()] == [False, False]
    assert not any(state.clean for state in jobs.states.values())


def test_a_stop_counts_what_runs_as_spent_and_takes_no_late_answer():
    jobs = jobs_for({"prompt": "a"}, {"prompt": "b"}, max_in_flight=1)
    (call,) = jobs.start()
    set_aside = jobs.shared.budget.reserved[call.id]
    assert jobs.stop("timeout") == (call.id,)
    assert jobs.shared.budget.reserved == {} and jobs.shared.budget.spent_usd == set_aside
    assert [state.code for state in jobs.states.values()] == ["timeout"] * 2 and not jobs.running()


def test_every_answer_is_paid_for_by_what_it_took():
    jobs = jobs_for({"prompt": "a"})
    (call,) = jobs.start()
    replied(jobs, call, "one two three")
    assert jobs.shared.budget.spent_usd == pytest.approx(10 * 0.1 + 3 * 0.4) and jobs.shared.budget.reserved == {}
    failed = jobs_for({"prompt": "a"})
    (call,) = failed.start()
    set_aside = failed.shared.budget.reserved[call.id]
    failed.receive(Reply(call, error=NoReplica("small", "gone")))
    assert failed.shared.budget.spent_usd == set_aside, "nobody says what it cost"
