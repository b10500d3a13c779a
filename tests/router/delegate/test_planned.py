"""Delegation from the gates to the answer: the ways that a request goes, side by side, and what that costs."""

import json

import pytest
from delegating import FIELDS, MAP, SETTINGS, chat, listing, number, results, run, state
from scripted import Said, ladder, told, words

from router.config import Delegation
from router.types import Commit, Say

# -- the ways that a request goes -----------------------------------------------------------------------------------------


def test_every_part_of_a_list_goes_down_and_the_list_of_results_is_the_answer():
    done = run(MAP, subtask=lambda call: f"r{number(call)}")
    assert done.end == Say("\n".join(f"{i}. r{i}" for i in range(1, 9)), "large", done.end.outcomes, done.end.report)
    assert [call.role for call in done.calls] == ["plan"] + ["subtask"] * 8
    assert {call.tier for call in done.of("subtask")} == {"small"} and state(done) == "done"
    assert told(done.of("subtask")[0]).startswith("say number 1 word"), "the part alone, its number stripped"


@pytest.mark.parametrize(
    "head, part, tail, said",
    [
        ("Do each of these:", "1. Spell harbour.", "", "Spell harbour."),
        ("Do each of these:", "1. Spell harbour.", "Answer in French.", "Spell harbour.\n\nAnswer in French."),
        ("Put each of these into German:", "1. The kettle broke.", "", "Put each of these into German:\n\nThe kettle broke."),
        ("What is the tone of each?", "- The kettle broke.", "", "What is the tone of each?\n\nThe kettle broke."),
        ("", "- The kettle broke.", "", "The kettle broke."),
    ],
)
def test_a_part_that_is_no_request_is_told_what_its_list_asks(head, part, tail, said):
    text = "\n".join([head, part, part.replace("1.", "2.") + " " + "w " * 30, part.replace("1.", "3.") + " also", "", tail])
    settings = SETTINGS.model_copy(update={"plan_prompt": "plan {preview}"})
    assert told(run(MAP, chat(text), settings).of("subtask")[0]) == said


def test_a_part_is_told_what_stands_beside_its_block():
    content = [{"type": "text", "text": listing()}, {"type": "text", "text": "In French."}]
    done = run(MAP, chat(content))
    assert told(done.of("subtask")[0]).startswith("In French.\n\nsay number 1 word") and isinstance(done.end, Say)


def test_in_a_conversation_the_list_of_results_is_not_the_answer_yet():
    earlier = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    done = run(MAP, {"messages": [*earlier, *chat(listing())["messages"]]})
    assert isinstance(done.end, Commit) and told(done.of("plan")[0]).endswith("user: hi\n\nassistant: hello")


def test_the_system_prompt_stays_in_front_of_every_call():
    body = {"messages": [{"role": "system", "content": "Be brief. " * 40}, *chat(listing())["messages"]]}
    done = run({**MAP, "merge": True}, body)
    assert {call.body["messages"][0]["content"] for call in done.calls} == {"Be brief. " * 40}


def test_a_plan_that_is_dearer_than_the_plain_answer_is_not_worked_on():
    body = chat(listing())
    plan = {"plan": [{"prompt": f"again {i}", "context": ["c1"]} for i in range(8)], "merge": True}
    settings = SETTINGS.model_copy(update={"max_cost_ratio": 40.0})
    done = run(plan, body, settings, route=lambda text, difficulty: "large" if "again" in text else "small")
    assert state(done) == "not_worth_it" and not done.of("subtask") and done.of("final")[0].body is body


def test_a_template_written_with_the_plan_is_the_answer():
    subtasks = [{"prompt": "first"}, {"prompt": "second"}, {"id": "t9", "prompt": "third"}]
    plan = {"plan": subtasks, "answer": "A {{t1}}, B {{t2}} {{t9}} {{t1}}."}
    done = run(plan, subtask=lambda call: told(call).upper())
    assert done.end.text == "A FIRST, B SECOND THIRD FIRST." and not done.of("final")


@pytest.mark.parametrize(
    "plan",
    [
        {"plan": [{"prompt": "first"}, {"prompt": "second"}]},
        {**MAP, "merge": True},
        {"plan": [{"each": "c1"}, {"prompt": "and this"}]},
    ],
)
def test_results_are_merged_by_the_top_tier_which_may_set_them_in(plan):
    done = run(plan, chat(listing(6)), final="{{t1}} and more")
    assert isinstance(done.end, Commit) and done.of("final")[0].hold == 1
    assert done.end.splice["t1"] and done.of("final")[0].tier == "large" and state(done) == "done"


@pytest.mark.parametrize(
    "more, why",
    [
        ({"settings": Delegation(mode="off")}, "off"),
        ({"splits": lambda text: False}, "ineligible"),
        ({"body": chat(listing(), n=2)}, "ineligible"),
        ({"body": chat(listing(), tools=[{"type": "function"}])}, "ineligible"),
        ({"body": chat("short")}, "not_worth_it"),
        ({"body": chat(listing(2))}, "not_worth_it"),
        ({"rungs": ladder(0.99, 1.0)}, "not_worth_it"),
    ],
)
def test_without_a_plan_the_request_goes_to_the_top_tier_untouched(more, why):
    body = more.get("body") or chat(listing(), temperature=0.3, extra={"as": "sent"})
    done = run(MAP, **{**more, "body": body})
    assert [call.role for call in done.calls] == ["final"] and done.calls[0].body is body
    assert state(done) == why and done.end.call_id == "final" and done.end.splice == {}


def test_an_empty_plan_means_the_request_as_it_was_sent():
    body = chat(listing())
    done = run({"plan": []}, body)
    assert [call.role for call in done.calls] == ["plan", "final"] and done.calls[1].body is body
    assert (state(done), done.outcomes["plan"]) == ("direct", "direct")


def test_the_answer_of_a_json_request_is_always_the_final_calls():
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    done = run(MAP, chat(listing(8, 400), response_format=wanted))
    final, plan = done.of("final")[0], done.of("plan")[0]
    assert final.body["response_format"] == wanted and plan.body["response_format"] != wanted and done.end.splice == {}
    assert "{{t1}}" not in told(final)


@pytest.mark.parametrize(
    "more, merged",
    [({"stop": ["5"]}, True), ({"max_tokens": 100}, True), ({"max_tokens": 101}, True), ({"max_tokens": 400}, False)],
)
def test_what_bounds_the_answer_bounds_the_final_call(more, merged):
    settings = SETTINGS.model_copy(update={"plan_prompt": "plan {preview}"})
    done = run(MAP, chat(listing(8, 100), **more), settings, subtask="w " * 13)
    assert len(done.of("subtask")) == 8 and bool(done.of("final")) == merged
    assert all(call.body[key] == value for call in done.of("final") for key, value in more.items())


def test_long_results_are_shown_by_head_and_tail_and_set_in_whole():
    long = json.dumps({"status": "ok", "evidence": "say number 1", "amount": "first " + "middle " * 600 + "last"})
    extract = {"prompt": "a", "kind": "extract", "context": ["c1"], "output_fields": FIELDS}
    settings = SETTINGS.model_copy(update={"subtask_max_tokens": 2048, "max_cost_ratio": 40.0})
    done = run(
        {"plan": [extract, {"prompt": "b"}]}, settings=settings, subtask=lambda call: long if "say" in told(call) else "short"
    )
    shown = results(done)["t1"]["data"]
    assert shown.startswith("first middle") and shown.endswith("last") and words(shown) < 400 and "[...]" in shown
    assert done.end.splice["t1"].count("middle") == 600 and results(done)["t2"]["data"] == "short"


# -- acceptance 1: side by side ---------------------------------------------------------------------------------------------


def test_eight_subtasks_take_the_time_of_one():
    done = run({**MAP, "merge": True})
    assert done.took_s == pytest.approx(0.05 + 0.2 + 0.05) and done.peak == 8


def test_a_chain_takes_the_time_of_its_links():
    plan = {"plan": [{"prompt": "a"}, {"prompt": "b", "context": ["t1"]}, {"prompt": "c", "depends_on": ["t2"]}]}
    done = run(plan)
    assert done.took_s == pytest.approx(0.05 + 3 * 0.2 + 0.05)
    assert "fine" in told(done.of("subtask")[1]), "the result it depends on is shown"


@pytest.mark.parametrize("most", [1, 3, 8])
def test_no_more_than_max_in_flight_run_at_once(most):
    done = run(MAP, settings=SETTINGS.model_copy(update={"max_in_flight": most}))
    assert done.peak == most and len(done.of("subtask")) == 8


def test_a_subtask_starts_as_soon_as_what_it_needs_is_there():
    plan = {"plan": [{"prompt": "slow"}, {"prompt": "fast"}, {"prompt": "after fast", "depends_on": ["t2"]}]}
    done = run(plan, subtask=lambda call: Said("x", 1.0 if told(call) == "slow" else 0.2))
    assert done.took_s == pytest.approx(0.05 + 1.0 + 0.05)


# -- acceptance 2: what it costs ---------------------------------------------------------------------------------------------


def document(tokens=20_000, sections=8):
    size = tokens // sections
    text = "\n\n".join(f"## Part {i}\n" + " ".join(f"w{i}_{k}" for k in range(size)) for i in range(sections))
    return f"Extract the amounts of every section.\n\n{text}"


def test_a_long_document_behind_handles_costs_less_than_half_of_the_direct_run():
    rungs = ladder(0.1, 1.0)
    extract = {"each": "c1", "kind": "extract", "prompt": "Which amounts does it name?", "max_tokens": 300}
    done = run(
        {"plan": [extract], "merge": True},
        chat(document()),
        Delegation(mode="plan"),
        rungs,
        subtask="amount " * 100,
        final="answer " * 300,
    )
    direct = rungs[-1].cost(words(document()), 300)
    assert done.cost(rungs) <= 0.45 * direct and state(done) == "done"
    assert "w3_50" not in "".join(told(call) for call in done.of("plan") + done.of("final")), "the top tier reads no slice"
    assert done.end.report["cost_delegated_estimate_usd"] < 0.8 * done.end.report["cost_direct_estimate_usd"]
