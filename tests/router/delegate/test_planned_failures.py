"""Parts that fail, are not sure or come too late; and whatever else happens."""

import json
import random

import pytest
from delegating import FIELDS, MAP, RUNGS, SETTINGS, chat, codes, listing, results, run, state
from scripted import Said, told, words

from router.errors import NoReplica, TierFailed
from router.limits.delegation_budget import Rung
from router.types import Commit, Fail

# -- acceptance 5: partial failure ---------------------------------------------------------------------------------------------


EIGHT = {
    "plan": [
        {"prompt": "hangs"},
        {"prompt": "babbles", "output_fields": FIELDS},
        {"prompt": "invents", "kind": "extract", "context": ["c1.1"], "output_fields": FIELDS},
        {"prompt": "breaks"},
        {"prompt": "after", "depends_on": ["t4"]},
        {"prompt": "fine"},
        {"prompt": "cut short"},
        {"prompt": "lacks", "output_fields": FIELDS},
    ]
}


def eight(call):
    text = told(call)
    if text.startswith("hangs"):
        return Said(wait_s=9)
    if text.startswith("breaks"):
        return Said(error=TierFailed(call.tier, "broke", 500))
    if text.startswith("babbles"):
        return Said("no JSON at all")
    if "invents" in text:
        return Said(json.dumps({"status": "ok", "evidence": "never written anywhere", "amount": "5"}))
    if text.startswith("lacks"):
        return Said(json.dumps({"status": "insufficient_context"}))
    return Said("long " * 9, finish="length" if text == "cut short" and call.body["max_tokens"] <= 512 else "stop")


def test_partial_failure_lists_every_subtask_with_its_code():
    settings = SETTINGS.model_copy(update={"deadline_s": 2.0, "max_cost_ratio": 40.0})
    done = run(EIGHT, settings=settings, subtask=eight)
    assert codes(done) == {
        "t1": "timeout",
        "t2": "schema_invalid",
        "t3": "not_grounded",
        "t4": "backend_error",
        "t5": "dependency_failed",
        "t6": "ok",
        "t7": "ok",
        "t8": "insufficient_context",
    }
    assert results(done)["t3"] == {
        "id": "t3",
        "status": "ok",
        "code": "not_grounded",
        "tier": "medium",
        "data": {"evidence": "never written anywhere", "amount": "5"},
        "grounded": False,
    }
    assert results(done)["t5"]["status"] == "skipped" and results(done)["t1"]["task"] == "hangs"
    assert len(done.calls) <= 16 and done.took_s <= 2.0 and state(done) == "partial"
    assert isinstance(done.end, Commit) and set(done.end.splice) == {"t3", "t6", "t7"}


def test_each_failure_is_tried_again_once_and_then_one_tier_up():
    done = run(EIGHT, settings=SETTINGS.model_copy(update={"max_cost_ratio": 40.0}), subtask=eight)
    asked = {}
    for call in done.of("subtask"):
        asked.setdefault(call.id.split("-")[0], []).append((call.tier, call.body["temperature"], call.body["max_tokens"]))
    assert asked["t2"] == [("small", 0, 512), ("small", 0.7, 512), ("medium", 0, 512)]
    assert asked["t3"] == [("small", 0, 512), ("medium", 0, 512)]
    assert asked["t7"] == [("small", 0, 512), ("small", 0, 1024)]
    assert [tier for tier, *_ in asked["t4"]] == ["small", "small", "medium"]
    assert [tier for tier, *_ in asked["t8"]] == ["small"], "a larger tier sees no more of the text"
    assert "t5" not in asked


def test_if_all_fail_the_request_is_answered_as_it_was_sent():
    body = chat(listing())
    settings = SETTINGS.model_copy(update={"max_cost_ratio": 40.0, "max_calls": 64})
    done = run(MAP, body, settings, subtask=Said(error=TierFailed("x", "broke")))
    assert done.of("final")[0].body is body and (state(done), done.end.report["why"]) == ("direct", "all subtasks failed")


def test_when_time_is_up_the_rest_is_cancelled_and_what_there_is_is_merged():
    settings = SETTINGS.model_copy(update={"deadline_s": 2.0, "max_in_flight": 1})
    done = run(MAP, settings=settings, final=Said("y", 0.5))
    assert isinstance(done.end, Commit) and done.end.report["truncated_by"] == "deadline" and state(done) == "partial"
    assert done.took_s <= 2.0 and list(codes(done).values()) == ["ok"] * 4 + ["timeout"] * 4
    late = {name for name, outcome in done.outcomes.items() if outcome == "cancelled: timeout"}
    assert len(late) == 1 and {name for step in done.steps for name in step.cancel} == late, "it runs on beside the last call"


@pytest.mark.parametrize(
    "failing, end, tiers",
    [
        ({}, Commit, ["large"]),
        ({"large": NoReplica("large", "gone")}, Commit, ["large", "medium"]),
        ({"large": NoReplica("large", "gone"), "medium": TierFailed("medium", "broke")}, Commit, ["large", "medium", "small"]),
        ({t: NoReplica(t, "gone") for t in ("small", "medium", "large")}, Fail, ["large", "medium", "small"]),
        ({"large": TierFailed("large", "bad field", 400)}, Fail, ["large"]),
    ],
)
@pytest.mark.parametrize("delegated", [True, False])
def test_the_last_call_falls_back_to_smaller_tiers(failing, end, tiers, delegated):
    plan = {**MAP, "merge": True} if delegated else {"plan": []}
    done = run(plan, final=lambda call: Said(error=failing.get(call.tier)) if call.tier in failing else "fine")
    assert isinstance(done.end, end) and [call.tier for call in done.of("final")] == tiers
    assert done.end.report.get("degraded", False) == (len(tiers) > 1)
    if end is Fail and len(tiers) == 3:
        assert done.end.error.code == ("delegation_failed" if delegated else "tier_unavailable")
    if end is Fail and len(tiers) == 1:
        assert done.end.error.status == 400, "the tier's own error"


def test_the_last_call_passes_over_tiers_whose_window_is_too_small():
    rungs = [RUNGS[0], Rung("medium", 20, 0.3, 1.2, words), RUNGS[2]]
    gone = {"large": NoReplica("large", "gone")}
    done = run({"plan": []}, rungs=rungs, final=lambda call: Said(error=gone.get(call.tier)) if call.tier in gone else "fine")
    assert [call.tier for call in done.of("final")] == ["large", "small"]


def test_a_tier_that_fails_at_the_deadline_is_the_last_that_is_asked():
    settings, gone = SETTINGS.model_copy(update={"deadline_s": 2.0}), NoReplica("large", "gone")
    done = run({**MAP, "merge": True}, settings=settings, final=Said(wait_s=1.75, error=gone))
    assert done.took_s == 2.0 and len(done.of("final")) == 1 and done.end.error.status == 504


def test_where_no_time_is_left_the_failure_says_so():
    done = run({**MAP, "merge": True}, settings=SETTINGS.model_copy(update={"deadline_s": 2.0}), final=Said(wait_s=99))
    assert isinstance(done.end, Fail) and done.end.error.status == 504 and done.took_s == 2.0
    assert done.outcomes["final"] == "cancelled"


def test_where_the_clients_limit_is_reached_the_failure_says_so():
    settings = SETTINGS.model_copy(update={"plan_prompt": "plan {preview}", "min_saving": 0.0})
    done = run("bad", chat(listing(), max_tokens=100), settings, repair="worse", more={"max_usd": 520.0})
    assert isinstance(done.end, Fail) and done.end.error.status == 429 and not done.of("final") and done.of("plan")


# -- going up ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sure, tiers", [("small", ["small"]), ("medium", ["small", "medium"]), (None, ["small", "medium", "large"])]
)
def test_low_confidence_goes_up_until_somebody_is_sure_or_the_top(sure, tiers):
    judge = lambda tier, text, reply: None if tier == sure else "low confidence"  # noqa: E731
    done = run({"plan": [{"prompt": "a"}], "answer": "{{t1}}"}, subtask=lambda call: f"by {call.tier}", more={"judge": judge})
    assert [call.tier for call in done.of("subtask")] == tiers and done.end.text == f"by {tiers[-1]}"
    assert [done.outcomes[call.id] for call in done.of("subtask")] == ["low confidence"] * (len(tiers) - 1) + ["accepted"]


def test_an_answer_of_low_confidence_stands_where_no_better_one_comes():
    judge = lambda tier, text, reply: "low confidence"  # noqa: E731
    done = run(
        {"plan": [{"prompt": "a"}], "answer": "{{t1}}"},
        more={"judge": judge},
        subtask=lambda call: "guess" if call.tier == "small" else Said(error=NoReplica(call.tier, "gone")),
    )
    assert done.end.text == "guess"


def test_the_planners_hint_reaches_the_router_and_the_window_is_kept():
    rungs = [Rung("small", 40, 0.1, 0.4, words), *RUNGS[1:]]
    plan = {"plan": [{"prompt": "a", "difficulty": "hard"}, {"prompt": "b"}, {"prompt": "c " * 50, "max_tokens": 100}]}
    seen = []
    route = lambda text, difficulty: seen.append((text[:1], difficulty)) or "small"  # noqa: E731
    done = run({**plan, "merge": True}, rungs=rungs, route=route)
    assert ("a", "hard") in seen and ("b", None) in seen
    assert {told(call)[0]: call.tier for call in done.of("subtask")} == {"a": "medium", "b": "medium", "c": "medium"}


def test_a_refusal_is_final():
    done = run(
        {"plan": [{"prompt": "a"}, {"prompt": "b"}]},
        subtask=lambda call: Said("", more={"refusal": "no"}) if told(call) == "a" else "x",
    )
    assert codes(done) == {"t1": "refused", "t2": "ok"} and len(done.of("subtask")) == 2


# -- whatever happens ------------------------------------------------------------------------------------------------------------


BROKE = TierFailed("x", "broke")


def any_plan(rng):
    """A plan that may pass: maps, texts, results of others, fields, templates."""
    n = rng.randint(1, 8)
    subtasks = []
    for i in range(1, n + 1):
        earlier = [f"t{k}" for k in range(1, i)]
        task = {"prompt": rng.choice(["same", f"p{i}", "say number 3"])}
        if rng.random() < 0.2:
            task["each"] = "c1"
        if rng.random() < 0.5:
            task["context"] = rng.sample(["c1", "c1.1", "c1.2-9", *earlier], 1)
        if earlier and rng.random() < 0.4:
            task["depends_on"] = rng.sample(earlier, 1)
        if rng.random() < 0.3:
            task |= {"kind": rng.choice(["extract", "draft"]), "output_fields": FIELDS}
        subtasks.append(task)
    more = rng.choice([{}, {"merge": True}, {"answer": "A {{t1}} B"}, {"answer": ""}])
    return {"plan": subtasks, **more}


def anything(rng, call):
    """A worker's answer, good, bad, late or none."""
    fields = {"status": rng.choice(["ok", "ok", "too_hard", "insufficient_context"]), "amount": "5", "evidence": "say number 1"}
    text = rng.choice(["fine", "", json.dumps(fields), "{{t1}} <|im_end|>", "w " * 700, '{"status": "ok"}', "[" * 3000])
    errors = [NoReplica("x", "gone"), BROKE, TierFailed("x", "bad", 400), TierFailed("x", "slow", 429)]
    error = rng.choice([None] * 8 + errors)
    more = rng.choice([{}] * 9 + [{"refusal": "no"}])
    return Said(text, rng.choice([0.0, 0.1, 0.1, 0.1, 5.0, 1e6]), error, more=more)


@pytest.mark.slow
def test_whatever_happens_the_flow_ends_in_time_with_every_reply_accounted_for():
    rng, ends, states = random.Random(12), set(), set()
    for _ in range(400):
        settings = SETTINGS.model_copy(
            update={
                "deadline_s": rng.choice([1.0, 5.0, 60.0]),
                "max_in_flight": rng.choice([1, 3, 8]),
                "max_calls": rng.choice([4, 16]),
                "max_cost_ratio": rng.choice([0.7, 3.0]),
                "min_saving": 0.0,
                "plan_prompt": "plan {preview}",
            }
        )
        done = run(
            any_plan(rng),
            chat(listing(rng.choice([4, 8]))),
            settings,
            subtask=lambda call: anything(rng, call),
            final=lambda call: Said("end", rng.choice([0.1, 0.1, 9.0]), rng.choice([None, None, BROKE])),
            more={"judge": lambda *_: rng.choice([None, None, "low confidence"])},
        )
        assert done.took_s <= settings.deadline_s + 1e-6
        assert len(done.calls) - len(done.of("final")) < settings.max_calls
        assert set(done.outcomes) == {call.id for call in done.calls}, "cancelled calls have an outcome too"
        counted = [done.end.report.get(key, 0) for key in ("ok", "failed", "skipped")]
        assert sum(counted) == done.end.report.get("subtasks", 0)
        ends.add(type(done.end).__name__)
        states.add(state(done))
    assert ends == {"Commit", "Say", "Fail"} and {"done", "partial", "direct", "plan_invalid"} <= states
